// What can be computed of vectors. They are float32; sums are float64.

export function dot(a, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i += 1) sum += a[i] * b[i];
  return sum;
}

export const norm = (a) => Math.sqrt(dot(a, a));

/** Return the cosine of two vectors; exactly 1 for equal bits, where rounding might not say so. */
export const cosine = (a, b) => (sameBits(a, b) ? 1 : dot(a, b) / (norm(a) * norm(b)));

export const cosines = (vectors) => vectors.map((a) => vectors.map((b) => cosine(a, b)));

/** Return the largest difference of any component. */
export function farthest(a, b) {
  let most = 0;
  for (let i = 0; i < a.length; i += 1) most = Math.max(most, Math.abs(a[i] - b[i]));
  return most;
}

/** Whether two vectors are equal bit for bit: 0 and -0 are not. */
export function sameBits(a, b) {
  if (a.length !== b.length) return false;
  const [x, y] = [a, b].map((v) => new Uint32Array(v.buffer, v.byteOffset, v.length));
  return x.every((bits, i) => bits === y[i]);
}

/** Compare all pairs of draws of one text: {most, least, same}. */
export function spread(draws) {
  const found = { most: 0, least: 1, same: true };
  draws.forEach((a, i) => {
    for (const b of draws.slice(i + 1)) {
      if (sameBits(a, b)) continue;
      found.same = false;
      found.most = Math.max(found.most, farthest(a, b));
      found.least = Math.min(found.least, cosine(a, b));
    }
  });
  return found;
}

/**
 * Principal components: {points: [x, y] a vector, shares: [x, y] of the whole variance}.
 *
 * The Gram matrix of the centred vectors has the same components as their covariance, and is as
 * small as there are texts. Which way an axis points is not defined; here its largest is positive.
 */
export function principal(vectors) {
  const { values, columns } = eigen(centredGram(vectors));
  const whole = values.reduce((sum, value) => sum + Math.max(0, value), 0);
  const order = values.map((_, i) => i).sort((i, j) => values[j] - values[i]);
  // What is left of nothing by rounding is no axis.
  const nothing = 1e-12 * Math.max(1, vectors.length);
  const axes = [0, 1].map((rank) => {
    const at = order[rank];
    const value = at === undefined ? 0 : values[at];
    if (value < nothing) return { along: vectors.map(() => 0), share: 0 };
    const along = vectors.map((_, row) => columns[row][at] * Math.sqrt(value));
    const largest = along.reduce((a, b) => (Math.abs(b) > Math.abs(a) ? b : a));
    return { along: along.map((x) => x * Math.sign(largest)), share: value / whole };
  });
  return {
    points: vectors.map((_, row) => axes.map((axis) => axis.along[row])),
    shares: axes.map((axis) => axis.share),
  };
}

function centredGram(vectors) {
  const middle = new Float64Array(vectors[0].length);
  for (const vector of vectors)
    vector.forEach((x, i) => {
      middle[i] += x / vectors.length;
    });
  const centred = vectors.map((vector) => Float64Array.from(vector, (x, i) => x - middle[i]));
  return centred.map((a) => centred.map((b) => dot(a, b)));
}

/**
 * Return the eigenvalues of a symmetric matrix and its eigenvectors, as columns, by Jacobi's
 * rotations. Exact where two values are close, for which power iteration would take for ever.
 */
function eigen(matrix) {
  const size = matrix.length;
  const a = matrix.map((row) => [...row]);
  const v = a.map((_, i) => a.map((_, j) => (i === j ? 1 : 0)));
  const scale = a.reduce((sum, row, i) => sum + Math.abs(row[i]), 0);
  for (let sweep = 0; sweep < 60; sweep += 1) {
    let beside = 0;
    for (let p = 0; p < size; p += 1) {
      for (let q = p + 1; q < size; q += 1) {
        beside = Math.max(beside, Math.abs(a[p][q]));
        if (a[p][q] !== 0) rotate(a, v, p, q);
      }
    }
    if (beside <= 1e-15 * scale) break;
  }
  return { values: a.map((row, i) => row[i]), columns: v };
}

/** Turn the plane of p and q so that they have nothing in common any more. */
function rotate(a, v, p, q) {
  const theta = (a[q][q] - a[p][p]) / (2 * a[p][q]);
  const t = (theta < 0 ? -1 : 1) / (Math.abs(theta) + Math.hypot(theta, 1));
  const c = 1 / Math.hypot(t, 1);
  const s = t * c;
  for (const row of a) [row[p], row[q]] = [c * row[p] - s * row[q], s * row[p] + c * row[q]];
  for (let k = 0; k < a.length; k += 1) {
    [a[p][k], a[q][k]] = [c * a[p][k] - s * a[q][k], s * a[p][k] + c * a[q][k]];
  }
  for (const row of v) [row[p], row[q]] = [c * row[p] - s * row[q], s * row[p] + c * row[q]];
}

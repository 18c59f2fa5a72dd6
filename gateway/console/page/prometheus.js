// The text of Prometheus' exposition format, and what can be asked of it.

const NAME = /[a-zA-Z_:][\w:]*/y;
const LABEL = /\s*([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"\s*,?/y;
const UNESCAPED = { n: "\n", "\\": "\\", '"': '"' };

function number(text) {
  if (text === "+Inf") return Infinity;
  return text === "-Inf" ? -Infinity : Number(text);
}

function sample(line) {
  NAME.lastIndex = 0;
  const name = NAME.exec(line)?.[0];
  if (!name) return null;
  let at = name.length;
  const labels = new Map();
  if (line[at] === "{") {
    at += 1;
    LABEL.lastIndex = at;
    for (let found; (found = LABEL.exec(line)); at = LABEL.lastIndex) {
      labels.set(
        found[1],
        found[2].replace(/\\(.)/g, (all, c) => UNESCAPED[c] ?? all),
      );
    }
    at = line.indexOf("}", at) + 1;
    if (at === 0) return null;
  }
  const value = number(line.slice(at).trim().split(/\s+/)[0]);
  return Number.isNaN(value) ? null : { name, labels, value };
}

/** What one scrape said. `prefix` is left out of all names. */
export class Scrape {
  constructor(text, prefix) {
    this.samples = new Map();
    for (const line of text.split("\n")) {
      if (!line.startsWith(prefix)) continue;
      const found = sample(line);
      if (!found) continue;
      const name = found.name.slice(prefix.length);
      if (!this.samples.has(name)) this.samples.set(name, []);
      this.samples.get(name).push(found);
    }
  }

  has(name) {
    return this.samples.has(name);
  }

  /** Return the samples of a name whose labels pass `where`. */
  of(name, where = () => true) {
    return (this.samples.get(name) ?? []).filter((found) => where(found.labels));
  }

  /** Return the sum of them; null where there is no such metric at all. */
  sum(name, where) {
    if (!this.has(name)) return null;
    return this.of(name, where).reduce((sum, found) => sum + found.value, 0);
  }

  /** Return their sums by what `key` makes of the labels. */
  by(name, key, where) {
    const sums = new Map();
    for (const { labels, value } of this.of(name, where)) {
      const group = typeof key === "string" ? (labels.get(key) ?? "") : key(labels);
      sums.set(group, (sums.get(group) ?? 0) + value);
    }
    return sums;
  }

  /** Return histograms by what `key` makes of the labels: Map of group to Map of bound to count. */
  histograms(name, key, where) {
    const groups = new Map();
    for (const { labels, value } of this.of(`${name}_bucket`, where)) {
      const group = typeof key === "string" ? (labels.get(key) ?? "") : key(labels);
      if (!groups.has(group)) groups.set(group, new Map());
      const bound = number(labels.get("le") ?? "");
      const buckets = groups.get(group);
      buckets.set(bound, (buckets.get(bound) ?? 0) + value);
    }
    return groups;
  }
}

/** Return how much a counter rose; one that is smaller than before began again at 0. */
export const rise = (before, after) => (after >= before ? after - before : after);

/** Return how much each counter of a Map rose; one that is new rose from 0. */
export function rises(before, after) {
  return new Map([...after].map(([key, value]) => [key, rise(before?.get(key) ?? 0, value)]));
}

export const total = (map) => [...map.values()].reduce((sum, value) => sum + value, 0);

/**
 * Return a quantile of a histogram as {value, bound?}, as Prometheus estimates it: evenly spread
 * within a bucket. In the first and the last one only a bound is known: "<" or ">" its edge.
 */
export function quantile(q, buckets) {
  const bounds = [...buckets.keys()].sort((a, b) => a - b);
  const all = buckets.get(Infinity) ?? 0;
  if (!all) return null;
  const rank = q * all;
  const at = bounds.findIndex((bound) => buckets.get(bound) >= rank);
  const bound = bounds[at];
  if (at === 0) return { value: bound, bound: "<" };
  if (bound === Infinity) return { value: bounds[at - 1], bound: ">" };
  const [low, under] = [bounds[at - 1], buckets.get(bounds[at - 1])];
  const share = (rank - under) / (buckets.get(bound) - under);
  return { value: low + (bound - low) * share };
}

// Texts as points: near each other where they mean alike, as far as two dimensions can show it.

import { byId, h, say, svg } from "./dom.js";
import { percent, shortened } from "./format.js";

const HEIGHT = 320;
const EDGE = 26;
const RADIUS = 9;
/** Of the words beside a point: how many at most, and about how wide a letter is. */
const LETTERS = 26;
const LETTER = 6.4;

/** Draw the points of `principal`; returns a function that marks some of them. */
export function drawMap(texts, { points, shares }) {
  const place = byId("map");
  const draw = () => {
    const width = place.clientWidth;
    if (width) place.replaceChildren(plot(texts, points, width), hidden(texts, points));
  };
  draw();
  place.resized?.disconnect();
  place.resized = new ResizeObserver(draw);
  place.resized.observe(place);
  const [x, y] = shares;
  say(
    byId("map-hint"),
    x + y > 0
      ? "The two directions in which these texts differ most: " +
          `${percent(x)} and ${percent(y)} of all difference.`
      : "These texts do not differ.",
  );
  return (marked) => {
    for (const point of place.querySelectorAll("[data-point]")) {
      point.classList.toggle("marked", marked?.includes(Number(point.dataset.point)) ?? false);
    }
  };
}

function plot(texts, points, width) {
  const [xs, ys] = [0, 1].map((axis) => points.map((point) => point[axis]));
  // One scale for both axes, so that distances are comparable; the whole plot is used.
  const [midX, midY] = [middle(xs), middle(ys)];
  const scale = Math.min(
    (width - 2 * EDGE) / (range(xs) || 1),
    (HEIGHT - 2 * EDGE) / (range(ys) || 1),
  );
  const placed = points.map(([x, y]) => [
    width / 2 + (x - midX) * scale,
    HEIGHT / 2 - (y - midY) * scale,
  ]);
  const marks = placed.map(([x, y], i) =>
    svg(
      "g",
      { "data-point": i, class: "point" },
      svg("title", {}, texts[i]),
      svg("circle", { cx: x, cy: y, r: RADIUS }),
      svg("text", { class: "number", x, y: y + 4, "text-anchor": "middle" }, String(i + 1)),
    ),
  );
  labels(texts, placed, width).forEach((label, i) => label && marks[i].append(label));
  return svg(
    "svg",
    {
      class: "plot",
      viewBox: `0 0 ${width} ${HEIGHT}`,
      width,
      height: HEIGHT,
      role: "img",
      "aria-label": `${texts.length} texts as points; the table that follows has their places`,
    },
    svg("path", { class: "axes", d: `M0 ${HEIGHT / 2}H${width}M${width / 2} 0V${HEIGHT}` }),
    ...marks,
  );
}

/** Return the words beside each point, or null where there is no room for them. */
function labels(texts, placed, width) {
  const taken = placed.map(([x, y]) => [x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS]);
  return placed.map(([x, y], i) => {
    const words = shortened(texts[i], LETTERS);
    const long = words.length * LETTER;
    for (const side of [1, -1]) {
      const near = x + side * (RADIUS + 6);
      const box = [
        Math.min(near, near + side * long),
        y - 7,
        Math.max(near, near + side * long),
        y + 7,
      ];
      if (box[0] < 0 || box[2] > width || taken.some((other) => overlap(box, other))) continue;
      taken.push(box);
      return svg(
        "text",
        { class: "words", x: near, y: y + 4, "text-anchor": side > 0 ? "start" : "end" },
        words,
      );
    }
    return null;
  });
}

const overlap = (a, b) => a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3];

/** The same for whoever cannot see it. */
function hidden(texts, points) {
  const cell = (value) => h("td", { "data-value": String(value) }, value.toFixed(3));
  return h(
    "div",
    { class: "unseen" },
    h(
      "table",
      { id: "map-table" },
      h("caption", {}, "Places on the map"),
      h(
        "thead",
        {},
        h("tr", {}, ...["Text", "Across", "Up"].map((name) => h("th", { scope: "col" }, name))),
      ),
      h(
        "tbody",
        {},
        ...texts.map((text, i) =>
          h("tr", {}, h("th", { scope: "row" }, text), ...points[i].map(cell)),
        ),
      ),
    ),
  );
}

const middle = (values) => (Math.max(...values) + Math.min(...values)) / 2;
const range = (values) => Math.max(...values) - Math.min(...values);

// Differences on a scale of powers of ten, with a place of its own for exactly none.

import { svg } from "./dom.js";
import { shortened } from "./format.js";

const ROW = 30;
const TOP = 26;
const POWERS = [-9, 0];
const NAMED = [-9, -6, -3, 0];

/** Draw `rows` of {text, apart, keptApart}; each difference is one mark. */
export function drawDifferences(place, rows) {
  const draw = () => {
    const width = place.clientWidth;
    if (width) place.replaceChildren(plot(rows, width));
  };
  draw();
  place.resized?.disconnect();
  place.resized = new ResizeObserver(draw);
  place.resized.observe(place);
}

function plot(rows, width) {
  const words = width > 560 ? 190 : 26;
  const zero = words + 26;
  const start = zero + 38;
  const x = (difference) => {
    if (difference === 0) return zero;
    const power = Math.max(POWERS[0], Math.min(POWERS[1], Math.log10(difference)));
    return start + ((power - POWERS[0]) / (POWERS[1] - POWERS[0])) * (width - start - 24);
  };
  const height = TOP + rows.length * ROW + 6;
  const scale = [
    ["0", zero],
    ...NAMED.map((power) => [`1e${power}`.replace("1e0", "1"), x(10 ** power)]),
  ];
  const ticks = scale.map(([name, at]) =>
    svg(
      "g",
      { class: "tick" },
      svg("path", { d: `M${at} ${TOP - 6}V${height}` }),
      svg("text", { x: at, y: 14, "text-anchor": "middle" }, name),
    ),
  );
  const lines = rows.map(({ text, apart, keptApart }, i) => {
    const y = TOP + (i + 0.5) * ROW;
    const name = words > 100 ? shortened(text, 27) : String(i + 1);
    const mark = (kind, dy) => (difference) =>
      svg("circle", { class: "mark", "data-kind": kind, cx: x(difference), cy: y + dy, r: 4.5 });
    return svg(
      "g",
      {},
      svg("text", { class: "words", x: 0, y: y + 4 }, name),
      ...apart.map(mark("upstream", -5)),
      ...keptApart.map(mark("memory", 6)),
    );
  });
  return svg(
    "svg",
    {
      class: "plot",
      viewBox: `0 0 ${width} ${height}`,
      width,
      height,
      role: "img",
      "aria-label":
        "Difference of each answer to the kept one; the table that follows has the numbers",
    },
    ...ticks,
    ...lines,
  );
}

// Every pair's cosine as a table of colours: a real table, for whoever cannot see them too.

import { byId, h, say } from "./dom.js";
import { hundredths, shortened } from "./format.js";

/** Up to so many texts the numbers stand in the cells. */
const READABLE = 12;
const STEPS = {
  ArrowLeft: (row, column) => [row, column - 1],
  ArrowRight: (row, column) => [row, column + 1],
  ArrowUp: (row, column) => [row - 1, column],
  ArrowDown: (row, column) => [row + 1, column],
  Home: (row) => [row, 0],
  End: (row, column, last) => [row, last],
};

/** Show the matrix. `onPair` is told of the pair that is looked at, null when none is. */
export function drawHeatmap(texts, matrix, onPair) {
  const readable = texts.length <= READABLE;
  const cells = matrix.map((row, i) => row.map((value, j) => cell(value, i, j, readable)));
  const heads = texts.map((text, j) =>
    h("th", { scope: "col", role: "columnheader", title: text }, String(j + 1)),
  );
  const rows = texts.map((text, i) =>
    h(
      "tr",
      { role: "row" },
      h(
        "th",
        { scope: "row", role: "rowheader", title: text },
        h("b", {}, String(i + 1)),
        h("span", {}, shortened(text, 60)),
      ),
      ...cells[i],
    ),
  );
  const grid = h(
    "table",
    {
      class: readable ? "heat" : "heat small",
      role: "grid",
      "aria-label": "Cosine of every pair of texts",
    },
    h(
      "thead",
      { role: "rowgroup" },
      h(
        "tr",
        { role: "row" },
        h("td", { role: "columnheader" }, h("span", { class: "unseen" }, "Text")),
        ...heads,
      ),
    ),
    h("tbody", { role: "rowgroup" }, ...rows),
  );
  grid.style.setProperty("--texts", texts.length);
  cells[0][0].tabIndex = 0;
  const tell = (pair) => {
    say(byId("heatmap-said"), pair ? sentence(texts, matrix, ...pair) : closest(texts, matrix));
    onPair(pair);
  };
  listen(grid, cells, tell);
  byId("heatmap").replaceChildren(grid);
  tell(null);
}

function cell(value, i, j, readable) {
  // Two colours, one for each sign; between 0 and 1 the whole scale of the usual one.
  const strength = Math.min(1, Math.abs(value));
  const text = hundredths(value);
  const made = h(
    "td",
    {
      role: "gridcell",
      tabindex: -1,
      "data-value": String(value),
      "data-at": `${i},${j}`,
      "data-sign": value < 0 ? "minus" : "plus",
      "data-depth": strength < 0.5 ? "low" : strength < 0.76 ? "middle" : "high",
    },
    readable ? text : h("span", { class: "unseen" }, text),
  );
  made.style.setProperty("--strength", `${strength * 100}%`);
  return made;
}

function listen(grid, cells, tell) {
  const at = (target) => target.closest?.("[data-at]")?.dataset.at.split(",").map(Number) ?? null;
  grid.addEventListener("pointerover", (event) => tell(at(event.target)));
  grid.addEventListener("pointerleave", () => tell(null));
  grid.addEventListener("focusin", (event) => tell(at(event.target)));
  grid.addEventListener("focusout", () => tell(null));
  grid.addEventListener("keydown", (event) => {
    const from = at(event.target);
    const step = STEPS[event.key];
    if (!from || !step) return;
    event.preventDefault();
    const [row, column] = step(...from, cells.length - 1);
    const next = cells[row]?.[column];
    if (!next) return;
    cells[from[0]][from[1]].tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });
}

const sentence = (texts, matrix, i, j) =>
  `${matrix[i][j].toFixed(6)}: “${shortened(texts[i], 80)}” and “${shortened(texts[j], 80)}”`;

function closest(texts, matrix) {
  let best = null;
  matrix.forEach((row, i) =>
    row.slice(0, i).forEach((value, j) => {
      if (!best || value > matrix[best[0]][best[1]]) best = [j, i];
    }),
  );
  return best ? `Closest: ${sentence(texts, matrix, ...best)}` : "A text alone is like itself.";
}

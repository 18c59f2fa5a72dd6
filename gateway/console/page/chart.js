// Lines or stacked areas over time, drawn into an SVG as wide as its place; with a legend that
// tells the newest values, or those under the pointer or the arrow keys.

import { h, say, svg } from "./dom.js";

const HEIGHT = 132;
const LEFT = 46;
const BOTTOM = 18;
const TOP = 8;
const RIGHT = 4;
/** How much time a chart shows: as little as holds what is known. In seconds. */
const SPANS = [60, 90, 120, 180, 240, 300];

/** Return a round number, of which half is one too, that is at least `most`. */
function round(most) {
  const power = 10 ** Math.floor(Math.log10(most));
  return [1, 2, 3, 4, 6, 8, 10].map((n) => n * power).find((n) => n >= most * 0.9999);
}

export class Chart {
  /**
   * `series` are {key, name, kind}: kind picks the colour. Options: `show` writes a value, `unit`
   * says of what, `stacked` fills, `log` has a scale of powers of ten, `least` is the smallest top
   * of the scale.
   */
  constructor(place, label, { show, unit = "", stacked = false, log = false, least = 1 }) {
    Object.assign(this, { place, label, show, unit, stacked, log, least });
    this.series = [];
    this.course = [];
    this.cursor = null;
    this.svg = svg("svg", { class: "plot", height: HEIGHT, tabindex: 0, role: "img" });
    this.legend = h("ul", { class: "legend" });
    this.when = h("li", { class: "when" });
    place.replaceChildren(this.svg, this.legend);
    new ResizeObserver(() => this.redraw()).observe(place);
    this.svg.addEventListener("pointermove", (event) => this.point(event.offsetX));
    this.svg.addEventListener("pointerleave", () => this.move(null));
    this.svg.addEventListener("blur", () => this.move(null));
    this.svg.addEventListener("keydown", (event) => this.press(event));
  }

  /** Draw `course`: [{at, values: Map of key to number, or null}], oldest first. */
  draw(series, course) {
    const known = this.series.map(({ key }) => key).join();
    this.series = series;
    this.course = course;
    if (known !== series.map(({ key }) => key).join() || !this.legend.children.length) this.name();
    this.redraw();
  }

  name() {
    this.told = this.series.map(() => h("b", {}));
    const unit = this.unit && h("li", {}, this.unit);
    this.legend.replaceChildren(
      ...(unit ? [unit] : []),
      ...this.series.map(({ name, kind }, i) =>
        h("li", {}, h("i", { "data-kind": kind }), name, " ", this.told[i]),
      ),
      this.when,
    );
  }

  press(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step || !this.course.length) return;
    event.preventDefault();
    const at = (this.cursor ?? this.course.length - 1) + step;
    this.move(Math.max(0, Math.min(this.course.length - 1, at)));
  }

  point(x) {
    if (!this.course.length) return;
    const away = this.course.map(({ at }) => Math.abs(this.x(at) - x));
    this.move(away.indexOf(Math.min(...away)));
  }

  move(cursor) {
    if (cursor === this.cursor) return;
    this.cursor = cursor;
    this.redraw();
  }

  x(at) {
    const end = this.course.at(-1)?.at ?? 0;
    return LEFT + (1 - (end - at) / 1000 / this.span) * (this.width - LEFT - RIGHT);
  }

  y(value) {
    const [low, high] = this.range;
    const share = this.log
      ? Math.log(Math.max(value, low) / low) / Math.log(high / low)
      : value / high;
    return TOP + (1 - share) * (HEIGHT - TOP - BOTTOM);
  }

  redraw() {
    this.width = this.place.clientWidth;
    if (!this.width) return;
    const known = ((this.course.at(-1)?.at ?? 0) - (this.course[0]?.at ?? 0)) / 1000;
    this.span = SPANS.find((span) => span >= known) ?? SPANS.at(-1);
    this.range = this.scale();
    this.svg.setAttribute("viewBox", `0 0 ${this.width} ${HEIGHT}`);
    this.svg.setAttribute("width", this.width);
    this.svg.replaceChildren(...this.grid(), ...this.marks(), ...this.pointer());
    this.tell();
  }

  /** Return the lowest and the highest value of the scale. */
  scale() {
    const all = this.course
      .flatMap(({ values }) => (values ? this.heights(values) : []))
      .filter((value) => value !== null);
    const most = Math.max(this.least, ...all);
    if (!this.log) return [0, round(most)];
    const low = Math.min(...all.filter((value) => value > 0), this.least);
    return [10 ** Math.floor(Math.log10(low)), 10 ** Math.ceil(Math.log10(most) + 1e-9)];
  }

  /** Return how high each series reaches: the value, or on top of those before. */
  heights(values) {
    let base = 0;
    return this.series.map(({ key }) => {
      const value = values.get(key) ?? null;
      if (!this.stacked) return value;
      base += value ?? 0;
      return base;
    });
  }

  grid() {
    const [low, high] = this.range;
    const powers = Math.round(Math.log10(high / low));
    const ticks = this.log
      ? Array.from({ length: powers + 1 }, (_, i) => low * 10 ** i)
      : [0, high / 2, high];
    const lines = ticks.map((value) =>
      svg(
        "g",
        { class: "tick" },
        svg("path", { d: `M${LEFT} ${this.y(value)}H${this.width - RIGHT}` }),
        svg("text", { x: LEFT - 8, y: this.y(value) + 4, "text-anchor": "end" }, this.show(value)),
      ),
    );
    const times = [this.span, this.span / 2, 0].map((seconds, i) =>
      svg(
        "text",
        {
          y: HEIGHT - 3,
          x: LEFT + (1 - seconds / this.span) * (this.width - LEFT - RIGHT),
          "text-anchor": ["start", "middle", "end"][i],
        },
        ago(seconds),
      ),
    );
    return [...lines, ...times];
  }

  marks() {
    return this.series.map(({ kind }, i) => {
      const runs = this.runs(i);
      const line = runs
        .map((run) => `M${run.map(({ x, top }) => `${x} ${top}`).join("L")}`)
        .join("");
      const area = runs
        .map(
          (run) =>
            `M${run.map(({ x, top }) => `${x} ${top}`).join("L")}L${run
              .toReversed()
              .map(({ x, base }) => `${x} ${base}`)
              .join("L")}Z`,
        )
        .join("");
      return svg(
        "g",
        { class: "series", "data-kind": kind },
        this.stacked ? svg("path", { class: "area", d: area }) : null,
        svg("path", { class: "line", d: line }),
      );
    });
  }

  /** Return the stretches of a series without a gap, as points. */
  runs(i) {
    const runs = [[]];
    for (const { at, values } of this.course) {
      const tops = values && this.heights(values);
      if (!tops || tops[i] === null) {
        runs.push([]);
        continue;
      }
      const base = this.stacked && i > 0 ? tops[i - 1] : this.range[0];
      runs.at(-1).push({ x: f(this.x(at)), top: f(this.y(tops[i])), base: f(this.y(base)) });
    }
    // Of a single point nothing would be seen.
    return runs
      .filter((run) => run.length)
      .map((run) => (run.length > 1 ? run : [{ ...run[0], x: f(run[0].x - 2) }, run[0]]));
  }

  pointer() {
    const at = this.course[this.cursor ?? -1]?.at;
    if (at === undefined) return [];
    return [svg("path", { class: "cursor", d: `M${f(this.x(at))} ${TOP}V${HEIGHT - BOTTOM}` })];
  }

  tell() {
    const shown = this.course[this.cursor ?? this.course.length - 1];
    const words = this.series.map(({ key, name }, i) => {
      const value = shown?.values?.get(key) ?? null;
      say(this.told[i], value === null ? "–" : this.show(value));
      return `${name} ${this.told[i].textContent}`;
    });
    const end = this.course.at(-1)?.at;
    const back = this.cursor === null ? 0 : Math.round((end - shown.at) / 1000);
    say(this.when, back ? `${back} s ago` : "");
    this.svg.setAttribute(
      "aria-label",
      `${this.label}, lately. ${back ? `${back} s ago` : "Now"}: ${words.join(", ")}.`,
    );
  }
}

function ago(seconds) {
  if (seconds === 0) return "now";
  return seconds < 120 ? `${seconds} s ago` : `${String(seconds / 60).replace(".5", "½")} min ago`;
}

const f = (n) => Math.round(n * 10) / 10;

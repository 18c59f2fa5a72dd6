// "Live": what passes through, from the metrics of one scrape after the other.

import { Chart } from "./chart.js";
import { byId, h, say, whenChanged } from "./dom.js";
import * as show from "./format.js";
import { quantile, total } from "./prometheus.js";
import { Ring, read, together } from "./readings.js";

const KEPT = 300_000;
/** Seconds over which the large numbers, and each point of a chart, are taken. */
const LATELY = 60;
const POINT = 10;
/** Seconds by which the event loop may be late. */
const LATE = 0.1;

/** Where a text's vector, or an answer, came from: in the order in which they are stacked. */
export const ORIGINS = new Map([
  ["memory", "memory"],
  ["store", "store"],
  ["duplicate", "twice in one request"],
  ["in-flight", "a call under way"],
  ["upstream", "model"],
]);
const MADE = "upstream";

const RESULTS = new Map([
  ["hit", "cached"],
  ["partial", "partly cached"],
  ["miss", "not cached"],
  ["request", "past the cache"],
  ["bypass", "never kept"],
]);
const HUES = {
  hit: "memory",
  partial: "store",
  miss: "upstream",
  request: "in-flight",
  bypass: "duplicate",
};

export class Live {
  constructor() {
    this.ring = new Ring(KEPT);
    this.requests = new Chart(byId("requests-chart"), "Requests a second", { show: show.rate });
    this.texts = new Chart(byId("texts-chart"), "Texts a second by origin", {
      show: show.rate,
      unit: "Texts a second:",
      stacked: true,
    });
    this.latency = new Chart(byId("latency-chart"), "Time to answer", {
      show: show.seconds,
      log: true,
      least: 0.01,
    });
    this.saved = new Chart(byId("saved-chart"), "Tokens a second", {
      show: show.rate,
      unit: "Tokens a second:",
      stacked: true,
    });
    this.facts = whenChanged(drawFacts);
    this.frame();
  }

  /** Take one scrape in; `at` in milliseconds. Returns the reading. */
  take(text, at) {
    const reading = read(text, at);
    this.ring.push(reading);
    this.frame();
    return reading;
  }

  frame() {
    const lately = this.ring.lately(LATELY);
    const course = this.ring.course(POINT);
    this.drawRequests(lately, course);
    this.drawTexts(lately, course);
    this.drawLatency(lately, course);
    this.drawSaved(course);
    if (lately) this.facts(factsOf(this.ring.last, lately));
  }

  drawRequests(lately, course) {
    const series = [
      { key: "embeddings", name: "embeddings", kind: "memory" },
      { key: "chat", name: "chats", kind: "store" },
    ];
    this.requests.draw(
      series,
      each(course, (of) => perSecond(of.requests, of.seconds, series)),
    );
    if (!lately) return;
    say(byId("requests-now"), show.rate(total(lately.requests) / lately.seconds));
    const all = total(this.ring.last.requests);
    say(byId("requests-note"), `over the last minute, ${show.count(all)} in all`);
  }

  drawTexts(lately, course) {
    const known = [...(this.ring.last?.texts.keys() ?? [])];
    const extra = known.filter((key) => !ORIGINS.has(key));
    const series = [...ORIGINS.keys(), ...extra]
      .filter((key) => key === MADE || key === "memory" || known.includes(key))
      .map((key) => ({ key, name: ORIGINS.get(key) ?? key, kind: key }));
    this.texts.draw(
      series,
      each(course, (of) => perSecond(of.texts, of.seconds, series)),
    );
    if (!lately) return;
    const [recent, ever] = [lately.texts, this.ring.last.texts].map(hitRate);
    const part = recent ?? ever;
    say(byId("texts-now"), part === null ? "–" : show.percent(part));
    const all = show.plural(total(this.ring.last.texts), "text");
    if (ever === null) say(byId("texts-note"), "no texts yet: try the playground below");
    else if (recent === null) say(byId("texts-note"), `of ${all} in all, none in the last minute`);
    else say(byId("texts-note"), `over the last minute; ${show.percent(ever)} of ${all} in all`);
  }

  drawLatency(lately, course) {
    const known = this.ring.last?.durations ?? new Map();
    const results = [...RESULTS.keys()].filter((result) => known.has(result));
    if (results.length) this.latency.draw(...byResult(results, course));
    else this.latency.draw(...ofAll(course));
    if (!lately) return;
    const recent = together(lately.durations);
    const all = recent.get(Infinity) ? recent : together(this.ring.last.durations);
    say(byId("latency-p50"), show.estimate(quantile(0.5, all)));
    say(byId("latency-p99"), show.estimate(quantile(0.99, all)));
  }

  drawSaved(course) {
    const series = [
      { key: "cache", name: "from the cache", kind: "memory" },
      { key: "upstream", name: "computed", kind: "upstream" },
    ];
    this.saved.draw(
      series,
      each(course, (of) => perSecond(of.tokens, of.seconds, series)),
    );
    if (!this.ring.last) return;
    const { dollars, tokens } = this.ring.last;
    const spared = show.plural(tokens.get("cache") ?? 0, "token");
    const priced = dollars.has("saved") || dollars.has("spent");
    say(byId("saved-now"), priced ? show.dollars(dollars.get("saved") ?? 0) : spared);
    const spent = show.dollars(dollars.get("spent") ?? 0);
    say(
      byId("saved-note"),
      priced ? `for ${spent} spent; ${spared} not computed again` : "not computed again",
    );
  }
}

/** Return the course with the values that `values` makes of what happened. */
const each = (course, values) => course.map(({ at, of }) => ({ at, values: of && values(of) }));

const perSecond = (sums, seconds, series) =>
  new Map(series.map(({ key }) => [key, (sums.get(key) ?? 0) / seconds]));

/** Return the series and the course of each cache result's slowest hundredth. */
function byResult(results, course) {
  const series = results.map((key) => ({
    key,
    name: `${RESULTS.get(key) ?? key}, p99`,
    kind: HUES[key] ?? key,
  }));
  const values = ({ durations }) =>
    new Map(results.map((key) => [key, quantileOf(0.99, durations.get(key))]));
  return [series, each(course, values)];
}

/** Return the series and the course of all answers' median and slowest hundredth. */
function ofAll(course) {
  const series = [
    { key: "p50", name: "median", kind: "memory" },
    { key: "p99", name: "p99", kind: "upstream" },
  ];
  const values = ({ durations }) => {
    const all = together(durations);
    return new Map([
      ["p50", quantileOf(0.5, all)],
      ["p99", quantileOf(0.99, all)],
    ]);
  };
  return [series, each(course, values)];
}

const quantileOf = (q, buckets) => (buckets ? (quantile(q, buckets)?.value ?? null) : null);

/** Return the part of the texts that no model was asked for; null where there were none. */
export function hitRate(texts) {
  const all = total(texts);
  return all ? 1 - ((texts.get(MADE) ?? 0) + (texts.get("error") ?? 0)) / all : null;
}

/** Return the small figures under the charts, as [name, value, kind?]. */
function factsOf(last, lately) {
  const facts = [...traffic(last, lately), ...troubles(last.scrape), ...house(last, lately)];
  return facts.map(([name, value, kind]) => [name, value, kind || ""]);
}

/** What the last minute's requests came to. */
function* traffic({ inFlight, rejected }, lately) {
  if (inFlight !== null) yield ["In flight", show.count(inFlight)];
  const failed = lately.answers.get("5xx") ?? 0;
  yield ["Failed, last minute", show.count(failed), failed && "bad"];
  const mistaken = lately.answers.get("4xx") ?? 0;
  yield ["Clients’ mistakes, last minute", show.count(mistaken), mistaken && "warn"];
  if (rejected) {
    const reasons = counted(lately.rejected);
    yield ["Turned away, last minute", reasons || "0", reasons && "warn"];
  }
  const own = quantile(0.99, together(lately.overheads));
  if (own) yield ["The gateway’s own time, p99", show.estimate(own)];
}

/** What should not be, and mostly is not. */
function* troubles(scrape) {
  const drifted = scrape.of("drift_detected").filter(({ value }) => value);
  const models = [...new Set(drifted.map(({ labels }) => labels.get("model")))];
  if (models.length) yield ["Drifted", models.join(", "), "bad"];
  const refused = counted(scrape.by("vectors_refused_total", "reason"));
  if (refused) yield ["Vectors refused", refused, "bad"];
  const failovers = scrape.sum("upstream_failovers_total");
  if (failovers) yield ["Failovers", show.count(failovers), "warn"];
  if (scrape.sum("limits_shared")) yield ["Limits", "each worker counts alone", "warn"];
}

/** What is told of the gateway itself. */
function* house({ scrape, chats }, lately) {
  const again = hitRate(chats);
  if (again !== null) yield ["Chats told again", show.percent(again)];
  const retries = scrape.sum("upstream_retries_total");
  if (retries !== null) yield ["Retries", show.count(retries)];
  const reloads = total(scrape.by("config_reloads_total", "result"));
  const last = scrape.sum("config_last_reload_success") === 0 ? ", the last one refused" : "";
  if (reloads) yield ["Config reloads", `${show.count(reloads)}${last}`, last && "bad"];
  const lag = quantile(0.99, together(lately.lags));
  if (lag && lag.value >= LATE) yield ["Event loop late, p99", show.estimate(lag), "warn"];
  const workers = scrape.sum("workers");
  if (workers > 1) yield ["Workers", show.count(workers)];
  const memory = scrape.sum("process_resident_bytes");
  if (memory !== null) yield ["Memory", show.bytes(memory)];
}

/** Return counts in words, without those that are 0. */
const counted = (counts) =>
  [...counts]
    .filter(([, n]) => n)
    .map(([what, n]) => `${what} ${show.count(n)}`)
    .join(", ");

function drawFacts(facts) {
  byId("facts").replaceChildren(
    ...facts.map(([name, value, kind]) =>
      h("div", { "data-kind": kind }, h("dt", {}, name), h("dd", {}, value)),
    ),
  );
}

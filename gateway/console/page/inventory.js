// What is served and by whom: models, upstreams with their health, the tiers of the cache.

import { byId, chip, h, say, table, whenChanged } from "./dom.js";
import * as show from "./format.js";
import { quantile, rise, total } from "./prometheus.js";

const CIRCUIT = new Map([
  [1, "half-open"],
  [2, "open"],
]);
const STATES = new Map([
  ["ready", "good"],
  ["closed", "good"],
  ["up", "good"],
  ["steady", "good"],
  ["noise", "good"],
  ["starting", "warn"],
  ["waiting", "warn"],
  ["half-open", "warn"],
  ["fails", "warn"],
  ["unknown", "warn"],
  ["not told", "warn"],
  ["failed", "bad"],
  ["open", "bad"],
  ["out", "bad"],
  ["down", "bad"],
  ["drift", "bad"],
]);
const state = (name) => chip(name, STATES.get(name) ?? "plain");
const LATELY = 60;
const ABOUT_DRIFT =
  "Drift: how far a model\u2019s answers to a few fixed texts lie from those that it gave first. " +
  "The command \u201cgateway drift\u201d tells more.";

/** Notes when an upstream's calls last failed, and how: a counter tells neither. */
export class Failures {
  constructor() {
    this.seen = new Map();
    this.before = null;
  }

  look(calls, at) {
    for (const [upstream, outcomes] of this.before ? calls : []) {
      for (const [outcome, n] of outcomes) {
        const known = this.before.get(upstream)?.get(outcome) ?? 0;
        if (outcome !== "ok" && rise(known, n) > 0) this.seen.set(upstream, { outcome, at });
      }
    }
    this.before = calls;
  }

  /** Return in words what last went wrong: when, or since the gateway began how often. */
  last(upstream, outcomes, now) {
    const seen = this.seen.get(upstream);
    if (seen) return `${seen.outcome}, ${show.ago((now - seen.at) / 1000)}`;
    const [most] = [...(outcomes ?? [])]
      .filter(([outcome, n]) => outcome !== "ok" && n)
      .sort((a, b) => b[1] - a[1]);
    return most ? `${most[0]}, ${show.count(most[1])} since it began` : "";
  }
}

export class Inventory {
  constructor() {
    this.models = null;
    this.why = "";
    this.engines = new Map();
    this.reading = null;
    this.lately = null;
    this.failures = new Failures();
    this.drawModels = whenChanged((rows) =>
      table(byId("models"), "models-title", needed(MODELS, rows), rows),
    );
    this.drawUpstreams = whenChanged((rows) =>
      table(byId("upstreams"), "upstreams-title", needed(UPSTREAMS, rows), rows),
    );
    this.drawStores = whenChanged((rows) => {
      byId("stores-card").hidden = !rows.length;
      table(byId("stores"), "stores-title", STORES, rows);
    });
  }

  /** Take in what /v1/models said: its list, or null and why it is not there. */
  takeModels(models, why = "") {
    this.models = models;
    this.why = why || (models.length ? "" : "This key may use no model.");
    byId("models").hidden = !models?.length;
    this.draw();
  }

  takeEngines(engines) {
    this.engines = new Map(Object.entries(engines ?? {}));
    this.draw();
  }

  takeReading(reading, lately) {
    this.failures.look(reading.calls, reading.at);
    this.reading = reading;
    this.lately = lately;
    this.draw();
  }

  draw() {
    const models = (this.models ?? []).map((model) => this.modelRow(model));
    if (models.length) this.drawModels(models);
    const watched = models.some(({ drift }) => drift);
    say(byId("models-said"), this.why || (watched ? ABOUT_DRIFT : ""));
    const upstreams = this.upstreamRows();
    say(byId("upstreams-said"), upstreams.length ? "" : "None is known to this page yet.");
    byId("upstreams").hidden = !upstreams.length;
    if (upstreams.length) this.drawUpstreams(upstreams);
    if (this.reading) this.drawStores(storeRows(this.reading.scrape));
  }

  modelRow(model) {
    const served = model.upstreams?.length
      ? model.upstreams.map(({ name }) => name)
      : [model.upstream];
    const texts = this.reading?.scrape.sum("inputs_total", (l) => l.get("model") === model.id);
    return {
      name: model.id,
      aliases: (model.aliases ?? []).join(", "),
      task: model.task ?? "any",
      width: model.dimensions,
      context: model.context_length,
      served: served.filter(Boolean).join(", "),
      texts: texts ?? null,
      drift: this.reading && driftOf(this.reading.scrape, model.id, Date.now() / 1000),
    };
  }

  upstreamRows() {
    const told = new Map();
    for (const model of this.models ?? []) {
      if (model.upstream && !told.has(model.upstream))
        told.set(model.upstream, { state: model.state });
      // Of one that serves several models, what is wrong with it counts.
      for (const upstream of model.upstreams ?? [])
        if (upstream.reason || !told.get(upstream.name)?.reason) told.set(upstream.name, upstream);
    }
    const names = new Set([
      ...told.keys(),
      ...this.engines.keys(),
      ...(this.reading?.callSeconds.keys() ?? []),
      ...(this.reading?.calls.keys() ?? []),
    ]);
    return [...names].map((name) => this.upstreamRow(name, told.get(name) ?? {}));
  }

  upstreamRow(name, told) {
    const { reading, lately } = this;
    const [outcomes, now] = [reading?.calls.get(name), lately?.calls.get(name) ?? new Map()];
    const calls = total(now);
    const failed = calls - (now.get("ok") ?? 0);
    const label = (l) => l.get("upstream") === name;
    const circuit = CIRCUIT.get(reading?.scrape.sum("circuit_state", label));
    const habit = !outcomes ? "not asked yet" : failed && failed === calls ? "fails" : "ready";
    const ofEngine = (l) => l.get("engine") === name;
    const engine = (metric) =>
      this.engines.has(name) ? (reading?.scrape.sum(metric, ofEngine) ?? null) : null;
    const times = lately?.callSeconds.get(name);
    const recent = times?.get(Infinity) ? times : reading?.callSeconds.get(name);
    return {
      name,
      state: circuit ?? this.engines.get(name) ?? told.state ?? habit,
      calls: lately ? (calls / lately.seconds) * LATELY : null,
      failed: calls ? failed / calls : null,
      median: show.estimate(recent && quantile(0.5, recent)),
      error: told.reason ?? (reading ? this.failures.last(name, outcomes, reading.at) : ""),
      similarity: told.similarity ?? null,
      queue: engine("engine_queue_depth"),
      memory: engine("engine_resident_bytes"),
      restarts: engine("engine_restarts_total"),
    };
  }
}

/**
 * Return how the canary texts were answered last: {state, distance, checked}, the last one in words.
 * `now` is in seconds of Unix time. null: nobody has looked.
 */
function driftOf(scrape, model, now) {
  const last = (name, where = () => true) =>
    scrape.of(name, (l) => l.get("model") === model && where(l))[0]?.value;
  const failed = last("drift_checks_total", (l) => l.get("result") === "failed");
  const at = last("drift_last_check_timestamp_seconds");
  if (!at) return failed ? { state: "not told", distance: null, checked: "" } : null;
  const distance = last("drift_distance");
  const same = distance === 0 ? "steady" : "noise";
  return {
    state: last("drift_detected") ? "drift" : same,
    distance,
    checked: show.ago(Math.max(0, now - at)),
  };
}

function storeRows(scrape) {
  const sizes = (...names) => new Map(names.flatMap((name) => [...scrape.by(name, "tier")]));
  const [bytes, entries] = [
    sizes("cache_bytes", "store_bytes"),
    sizes("cache_entries", "store_entries"),
  ];
  const [up, evicted] = [scrape.by("store_up", "tier"), scrape.by("cache_evictions_total", "tier")];
  const corrupt = scrape.by("cache_corrupt_entries_total", "tier");
  return [...new Set([...bytes.keys(), ...up.keys()])].map((tier) => ({
    tier,
    state: up.get(tier) === 0 ? "down" : "up",
    entries: entries.get(tier) ?? null,
    bytes: bytes.get(tier) ?? null,
    evicted: evicted.get(tier) ?? 0,
    corrupt: corrupt.get(tier) ?? 0,
  }));
}

const NONE = "–";
const or = (value, shown) => (value === null || value === undefined ? NONE : shown(value));
const needed = (columns, rows) =>
  columns.filter(({ needed }) => !needed || rows.some((row) => needed(row)));

const driftCell = ({ state: found, distance, checked }) =>
  h(
    "span",
    {},
    state(found),
    h("small", {}, distance ? `1 \u2212 cos ${show.difference(distance)}, ${checked}` : checked),
  );

const MODELS = [
  {
    name: "Model",
    cell: ({ name, aliases }) =>
      h("span", {}, h("code", {}, name), aliases ? h("small", {}, `also ${aliases}`) : null),
  },
  { name: "Task", cell: ({ task }) => task },
  { name: "Dimensions", number: true, cell: ({ width }) => or(width, show.count) },
  { name: "Tokens, at most", number: true, cell: ({ context }) => or(context, show.count) },
  { name: "Texts so far", number: true, cell: ({ texts }) => or(texts, show.count) },
  {
    name: "Drift",
    needed: ({ drift }) => drift !== null,
    cell: ({ drift }) => or(drift, driftCell),
  },
  { name: "Served by", cell: ({ served }) => served },
];

const UPSTREAMS = [
  { name: "Upstream", cell: ({ name }) => h("code", {}, name) },
  { name: "State", cell: (row) => state(row.state) },
  { name: "Calls a minute", number: true, cell: ({ calls }) => or(calls, show.rate) },
  { name: "Failed", number: true, cell: ({ failed }) => or(failed, show.percent) },
  { name: "Median", number: true, cell: ({ median }) => median },
  {
    name: "Queue",
    number: true,
    needed: ({ queue }) => queue !== null,
    cell: ({ queue }) => or(queue, show.count),
  },
  {
    name: "Memory",
    number: true,
    needed: ({ memory }) => memory !== null,
    cell: ({ memory }) => or(memory, show.bytes),
  },
  {
    name: "Restarts",
    number: true,
    needed: ({ restarts }) => restarts !== null,
    cell: ({ restarts }) => or(restarts, show.count),
  },
  {
    name: "Cosine to its space",
    number: true,
    needed: ({ similarity }) => similarity !== null,
    cell: ({ similarity }) => or(similarity, show.cosine),
  },
  { name: "Last error", cell: ({ error }) => error || "none" },
];

const STORES = [
  { name: "Tier", cell: ({ tier }) => h("code", {}, tier) },
  { name: "State", cell: (row) => state(row.state) },
  { name: "Entries", number: true, cell: ({ entries }) => or(entries, show.count) },
  { name: "Size", number: true, cell: ({ bytes }) => or(bytes, show.bytes) },
  { name: "Evicted", number: true, cell: ({ evicted }) => show.count(evicted) },
  { name: "Damaged", number: true, cell: ({ corrupt }) => show.count(corrupt) },
];

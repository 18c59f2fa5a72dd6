// From the text of /metrics to what the page shows: a ring of readings, and the rise between two.

import { Scrape, rises } from "./prometheus.js";

/** What the names of all of the gateway's metrics begin with. */
export const PREFIX = "gateway_";

const ASKED = ["embeddings", "chat"];
const asked = (labels) => ASKED.includes(labels.get("operation"));
/** The result of the cache, under the name that the histogram has for it; "" where it has none. */
const cacheResult = (labels) => labels.get("cache") ?? labels.get("result") ?? "";

/** Return one reading: numbers and Maps of numbers, null for what this gateway does not export. */
export function read(text, at) {
  const scrape = new Scrape(text, PREFIX);
  return {
    at,
    scrape,
    requests: scrape.by("requests_total", "operation", asked),
    answers: scrape.by("requests_total", (labels) => family(labels.get("code") ?? ""), asked),
    durations: scrape.histograms("request_duration_seconds", cacheResult, asked),
    overheads: scrape.histograms("overhead_seconds", cacheResult, asked),
    lags: scrape.histograms("event_loop_lag_seconds", () => ""),
    texts: scrape.by("inputs_total", "result"),
    chats: scrape.by("chat_answers_total", "result"),
    tokens: tokensOf(scrape),
    dollars: scrape.by("cost_usd_total", "kind"),
    inFlight: scrape.sum("requests_in_flight", (l) => !l.has("operation") || asked(l)),
    rejected: scrape.has("rejected_total") ? scrape.by("rejected_total", "reason") : null,
    calls: callsOf(scrape),
    callSeconds: scrape.histograms("upstream_duration_seconds", "upstream"),
  };
}

const family = (code) => (code === "499" ? "left" : `${code[0] ?? "?"}xx`);

function tokensOf(scrape) {
  const sums = scrape.by("input_tokens_total", "source");
  for (const [source, tokens] of scrape.by("chat_tokens_total", "source")) {
    sums.set(source, (sums.get(source) ?? 0) + tokens);
  }
  return sums;
}

/** Return Map of upstream to Map of outcome to calls. */
function callsOf(scrape) {
  const calls = new Map();
  for (const { labels, value } of scrape.of("upstream_requests_total")) {
    const upstream = labels.get("upstream") ?? "";
    if (!calls.has(upstream)) calls.set(upstream, new Map());
    const outcomes = calls.get(upstream);
    const outcome = labels.get("outcome") ?? "";
    outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + value);
  }
  return calls;
}

/** Return what happened between two readings, in the shape of a reading. */
export function between(before, after) {
  const nested = (name) =>
    new Map([...after[name]].map(([key, map]) => [key, rises(before[name].get(key), map)]));
  return {
    seconds: (after.at - before.at) / 1000,
    requests: rises(before.requests, after.requests),
    answers: rises(before.answers, after.answers),
    durations: nested("durations"),
    overheads: nested("overheads"),
    lags: nested("lags"),
    texts: rises(before.texts, after.texts),
    chats: rises(before.chats, after.chats),
    tokens: rises(before.tokens, after.tokens),
    dollars: rises(before.dollars, after.dollars),
    rejected: after.rejected && rises(before.rejected, after.rejected),
    calls: nested("calls"),
    callSeconds: nested("callSeconds"),
  };
}

/** Return one histogram of several. */
export function together(histograms) {
  const sums = new Map();
  for (const buckets of histograms.values()) {
    for (const [bound, n] of buckets) sums.set(bound, (sums.get(bound) ?? 0) + n);
  }
  return sums;
}

/** The readings of the last minutes. */
export class Ring {
  constructor(milliseconds) {
    this.milliseconds = milliseconds;
    this.readings = [];
  }

  get last() {
    return this.readings.at(-1) ?? null;
  }

  push(reading) {
    // Only the newest keeps all that was scraped: the page is open for days.
    if (this.last) this.last.scrape = null;
    this.readings.push(reading);
    const oldest = reading.at - this.milliseconds;
    this.readings.splice(
      0,
      this.readings.findIndex(({ at }) => at >= oldest),
    );
  }

  /** Return what happened within the last seconds, or since the page was opened; null at first. */
  lately(seconds) {
    return this.readings.length < 2 ? null : this.upTo(this.readings.length - 1, seconds);
  }

  /** Return the same at each reading, as [{at, of}]; after a pause `of` is null. */
  course(seconds) {
    return this.readings.slice(1).map((reading, before) => {
      const paused = reading.at - this.readings[before].at > 15_000;
      return { at: reading.at, of: paused ? null : this.upTo(before + 1, seconds) };
    });
  }

  upTo(index, seconds) {
    const after = this.readings[index];
    let first = index - 1;
    while (first > 0 && after.at - this.readings[first].at < seconds * 1000 - 500) first -= 1;
    return between(this.readings[first], after);
  }
}

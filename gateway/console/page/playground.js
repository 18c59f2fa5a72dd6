// "Playground": texts in, and what their vectors say of them.

import { byId, chip, say, table } from "./dom.js";
import * as show from "./format.js";
import { drawHeatmap } from "./heatmap.js";
import { ORIGINS } from "./live.js";
import { drawMap } from "./map.js";
import { Mistake, RequestForm, RunButton } from "./request-form.js";
import { curl, openai } from "./snippets.js";
import { cosines, norm, principal } from "./vectors.js";

const MOST = 50;
/** Requests on the way at a time: fewer than a browser has connections, so that figures come in. */
const AT_ONCE = 4;
const SAMPLES = [
  "The cat sleeps on the warm windowsill.",
  "A kitten is dozing in the sun.",
  "The central bank raised its interest rate.",
  "Borrowing money has become more expensive.",
  "How long does sourdough have to rise?",
  "Bread needs flour, water, salt and time.",
];

export class Playground {
  constructor(api, baseUrl) {
    this.api = api;
    this.baseUrl = baseUrl;
    this.form = new RequestForm("playground", MOST, SAMPLES);
    this.button = new RunButton(byId("playground-run"));
    const form = byId("playground-form");
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.button.press((signal) => this.run(signal));
    });
    form.addEventListener("input", () => this.snippets());
    this.snippets();
  }

  models(names) {
    this.form.models(names);
    this.snippets();
  }

  snippets() {
    let request;
    try {
      request = this.form.checked();
    } catch (error) {
      for (const name of ["curl", "python"]) say(byId(`playground-${name}`), `# ${error.message}`);
      return;
    }
    const locked = this.api.key.value !== "";
    say(byId("playground-curl"), curl(request, this.baseUrl, locked));
    say(byId("playground-python"), openai(request, this.baseUrl, locked));
  }

  async run(signal) {
    const said = byId("playground-said");
    let request;
    try {
      request = this.form.request();
    } catch (error) {
      if (!(error instanceof Mistake)) throw error;
      say(said, error.message);
      error.field.focus();
      return;
    }
    const progress = (done) => say(said, `${done} of ${request.texts.length}…`);
    progress(0);
    const results = await this.embedAll(request, signal, progress);
    const good = results.filter((result) => result.vector);
    say(said, signal.aborted ? "Stopped." : summary(results, good));
    this.draw(results, good);
  }

  /** Embed each text by itself; returns {text, …} in the order of the texts. */
  async embedAll(request, signal, progress) {
    const results = request.texts.map((text) => ({ text, error: "" }));
    let [next, done] = [0, 0];
    const work = async () => {
      while (next < results.length && !signal.aborted) {
        const result = results[next];
        next += 1;
        await this.embedOne({ ...request, texts: [result.text] }, result, signal);
        done += 1;
        progress(done);
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, work));
    return results;
  }

  async embedOne(request, result, signal) {
    try {
      const { vectors, sources, ...rest } = await this.api.embed(request, { signal });
      Object.assign(result, rest, { vector: vectors[0], origin: [...sources.keys()][0] ?? "" });
    } catch (error) {
      result.error = error.name === "AbortError" ? "stopped" : error.message;
    }
  }

  draw(results, good) {
    byId("playground-results").hidden = false;
    table(byId("origins"), "origins-title", COLUMNS, results);
    const alone = good.length === 0;
    for (const id of ["heatmap", "map"]) byId(id).closest(".card").hidden = alone;
    if (alone) return;
    const [texts, vectors] = [good.map(({ text }) => text), good.map(({ vector }) => vector)];
    const mark = drawMap(texts, principal(vectors));
    drawHeatmap(texts, cosines(vectors), mark);
  }
}

function summary(results, good) {
  if (!good.length) return results[0].error;
  const origins = new Map();
  for (const { origin } of good) origins.set(origin, (origins.get(origin) ?? 0) + 1);
  const from = [...ORIGINS.keys()]
    .filter((key) => origins.has(key))
    .map((key) => `${origins.get(key)} from ${WORDS[key]}`);
  const failed = results.length - good.length;
  return [
    `${show.plural(good.length, "vector")} of ${show.count(good[0].vector.length)} numbers`,
    from.join(", "),
    ...(failed ? [`${show.plural(failed, "text")} failed`] : []),
  ].join("; ");
}

const WORDS = {
  memory: "memory",
  store: "the store",
  upstream: "the model",
  "in-flight": "a call under way",
  duplicate: "the same request",
};

const shown = (value, format) => (value === undefined ? "–" : format(value));

const COLUMNS = [
  { name: "Text", cell: ({ text }) => text },
  {
    name: "From",
    cell: ({ origin, unshared, truncated, error }) =>
      error
        ? chip(error, "bad")
        : chip(
            [ORIGINS.get(origin) ?? origin, unshared && "unshared", truncated && "cut"]
              .filter(Boolean)
              .join(", "),
            origin,
          ),
  },
  {
    name: "Time",
    number: true,
    cell: ({ milliseconds }) =>
      shown(milliseconds, (ms) => (ms ? show.seconds(ms / 1000) : "< 1 ms")),
  },
  {
    name: "Tokens",
    number: true,
    value: ({ tokens }) => tokens,
    cell: ({ tokens }) => shown(tokens, show.count),
  },
  {
    name: "Norm",
    number: true,
    value: ({ vector }) => vector && norm(vector),
    cell: ({ vector }) => shown(vector, (v) => norm(v).toFixed(7)),
  },
];

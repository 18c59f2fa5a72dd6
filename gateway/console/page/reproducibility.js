// "Reproducibility": the same texts again and again past the cache, and again from it.

import { byId, chip, h, say, table } from "./dom.js";
import * as show from "./format.js";
import { drawDifferences } from "./differences.js";
import { Mistake, RequestForm, RunButton } from "./request-form.js";
import { cosine, farthest, spread } from "./vectors.js";

const MOST = 20;
const DRAWS = [2, 20];
const SAMPLES = [
  "The same text, twice.",
  "Neptune has sixteen known moons.",
  "To be, or not to be, that is the question.",
];

export class Reproducibility {
  constructor(api) {
    this.api = api;
    this.form = new RequestForm("repro", MOST, SAMPLES);
    this.button = new RunButton(byId("repro-run"));
    const form = byId("repro-form");
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.button.press((signal) => this.run(signal));
    });
    form.addEventListener("input", () => this.cost());
    this.cost();
  }

  models(names) {
    this.form.models(names);
  }

  get draws() {
    const draws = Number(byId("repro-draws").value);
    return Number.isInteger(draws) && draws >= DRAWS[0] && draws <= DRAWS[1] ? draws : null;
  }

  cost() {
    const { draws, form } = this;
    say(
      byId("repro-cost"),
      draws === null
        ? ""
        : `The model computes ${show.plural(form.texts.length * draws, "text")} anew, ` +
            "which an upstream bills. What is kept stays as it is.",
    );
  }

  async run(signal) {
    const said = byId("repro-said");
    try {
      const request = this.form.request();
      byId("repro-draws").removeAttribute("aria-invalid");
      if (this.draws === null)
        throw new Mistake(`From ${DRAWS[0]} to ${DRAWS[1]} draws, please.`, byId("repro-draws"));
      say(said, "Asking…");
      const answers = await this.ask(request, this.draws, signal);
      const rows = compare(request.texts, answers);
      this.draw(rows, answers);
      say(said, verdict(rows));
    } catch (error) {
      say(said, error.name === "AbortError" ? "Stopped." : error.message);
      if (error instanceof Mistake) {
        error.field.setAttribute("aria-invalid", "true");
        error.field.focus();
      }
    } finally {
      byId("repro-progress").hidden = true;
    }
  }

  /** Return {fresh, kept}: lists of answers, each a vector a text; kept has one more, the first. */
  async ask(request, draws, signal) {
    const bar = byId("repro-progress");
    Object.assign(bar, { hidden: false, max: 2 * draws + 1, value: 0 });
    const once = async (fresh) => {
      const { vectors } = await this.api.embed(request, { fresh, signal });
      bar.value += 1;
      return vectors;
    };
    // One after the other: together they might share a batch, which is what makes some differ.
    const [kept, fresh] = [[await once(false)], []];
    for (let i = 0; i < draws; i += 1) fresh.push(await once(true));
    for (let i = 0; i < draws; i += 1) kept.push(await once(false));
    return { fresh, kept };
  }

  draw(rows, { fresh, kept }) {
    byId("repro-results").hidden = false;
    byId("repro-verdicts").replaceChildren(
      card(
        `Past the cache, ${fresh.length} draws`,
        rows.map((row) => row.fresh),
        "upstream",
      ),
      card(
        `From the cache, ${kept.length} answers`,
        rows.map((row) => row.kept),
        "memory",
      ),
    );
    drawDifferences(byId("repro-picture"), rows);
    table(byId("repro-table"), "repro-table-title", COLUMNS, rows);
  }
}

/** Return for each text how far apart its answers are, and each from the first that was kept. */
function compare(texts, { fresh, kept }) {
  return texts.map((text, i) => {
    const [draws, again] = [fresh, kept].map((answers) => answers.map((vectors) => vectors[i]));
    const [first] = again;
    return {
      text,
      fresh: spread(draws),
      kept: spread(again),
      apart: draws.map((draw) => farthest(draw, first)),
      keptApart: again.map((answer) => farthest(answer, first)),
      aside: Math.min(...draws.map((draw) => cosine(draw, first))),
    };
  });
}

const worst = (spreads) => ({
  most: Math.max(...spreads.map(({ most }) => most)),
  least: Math.min(...spreads.map(({ least }) => least)),
  same: spreads.every(({ same }) => same),
});

function verdict(rows) {
  const [fresh, kept] = [worst(rows.map((row) => row.fresh)), worst(rows.map((row) => row.kept))];
  const model = fresh.same
    ? "This model gives the same bits each time"
    : `This model’s answers differ by up to ${show.difference(fresh.most)}`;
  return kept.same
    ? `${model}; what is kept never differs.`
    : `${model}; kept answers differ too: the store is away, or they were purged meanwhile.`;
}

function card(title, spreads, kind) {
  const { most, least, same } = worst(spreads);
  return h(
    "article",
    { class: "card verdict", "data-kind": kind },
    h("h3", {}, title),
    h(
      "p",
      { class: "big" },
      h("span", {}, same ? "0" : show.difference(most)),
      " ",
      h("small", {}, "largest difference"),
    ),
    h(
      "p",
      {},
      chip(same ? "equal, bit for bit" : "not the same bits", same ? "good" : "warn"),
      ` least cosine ${show.cosine(least)}`,
    ),
  );
}

const bits = (same) => (same ? "equal" : "differ");

const COLUMNS = [
  { name: "Text", cell: ({ text }) => text },
  {
    name: "Draws differ by",
    number: true,
    value: ({ fresh }) => fresh.most,
    cell: ({ fresh }) => show.difference(fresh.most),
  },
  {
    name: "Their least cosine",
    number: true,
    value: ({ fresh }) => fresh.least,
    cell: ({ fresh }) => show.cosine(fresh.least),
  },
  { name: "Their bits", value: ({ fresh }) => fresh.same, cell: ({ fresh }) => bits(fresh.same) },
  {
    name: "To the kept one",
    number: true,
    value: ({ apart }) => Math.max(...apart),
    cell: ({ apart }) => show.difference(Math.max(...apart)),
  },
  {
    name: "Cosine to that",
    number: true,
    value: ({ aside }) => aside,
    cell: ({ aside }) => show.cosine(aside),
  },
  {
    name: "Kept differ by",
    number: true,
    value: ({ kept }) => kept.most,
    cell: ({ kept }) => show.difference(kept.most),
  },
  { name: "Kept bits", value: ({ kept }) => kept.same, cell: ({ kept }) => bits(kept.same) },
];

// What the playground and the comparison ask for alike: texts, a model, dimensions, a seed.

import { byId, h, say } from "./dom.js";

const OTHER = "\u0000other";
const SEEDS = [-(2n ** 63n), 2n ** 63n - 1n];

/** Something in a form that cannot be sent; `field` is the element to mend. */
export class Mistake extends Error {
  constructor(message, field) {
    super(message);
    this.field = field;
  }
}

export class RequestForm {
  /** `name` begins the ids of its elements; `most` is how many texts are taken. */
  constructor(name, most, samples) {
    this.most = most;
    this.field = (part) => byId(`${name}-${part}`);
    this.field("texts").value = samples.join("\n");
    this.field("texts").addEventListener("input", () => this.count());
    this.field("model").addEventListener("change", () => this.showOther());
    this.models([]);
    this.count();
  }

  get texts() {
    return this.field("texts")
      .value.split("\n")
      .filter((line) => line.trim());
  }

  get model() {
    const chosen = this.field("model").value;
    return chosen === OTHER ? this.field("other").value.trim() : chosen;
  }

  /** Offer models that may embed; the one that was chosen stays so. */
  models(names) {
    const select = this.field("model");
    const before = this.model && select.value;
    const options = [
      ...names.map((name) => [name, name]),
      [OTHER, names.length ? "another…" : "by its name…"],
    ];
    select.replaceChildren(...options.map(([value, text]) => h("option", { value }, text)));
    if (options.some(([value]) => value === before)) select.value = before;
    this.showOther();
  }

  showOther() {
    this.field("other").closest("label").hidden = this.field("model").value !== OTHER;
  }

  count() {
    say(this.field("count"), `${this.texts.length} of at most ${this.most}`);
  }

  /** Return {model, texts, dimensions, seed}; raise Mistake. Marks the field that is wrong. */
  request() {
    for (const part of ["texts", "other", "dimensions", "seed"])
      this.field(part).removeAttribute("aria-invalid");
    try {
      return this.checked();
    } catch (error) {
      error.field?.setAttribute("aria-invalid", "true");
      throw error;
    }
  }

  checked() {
    const { texts, model } = this;
    const [dimensions, seed] = ["dimensions", "seed"].map((part) => this.field(part).value.trim());
    if (!texts.length) throw new Mistake("Write at least one text.", this.field("texts"));
    if (texts.length > this.most)
      throw new Mistake(`At most ${this.most} texts, please.`, this.field("texts"));
    if (!model) throw new Mistake("Name a model.", this.field("other"));
    if (dimensions && !/^[1-9]\d{0,5}$/.test(dimensions)) {
      throw new Mistake(
        "Dimensions are a whole number from 1 on, or empty.",
        this.field("dimensions"),
      );
    }
    if (
      seed &&
      !(/^-?\d{1,19}$/.test(seed) && BigInt(seed) >= SEEDS[0] && BigInt(seed) <= SEEDS[1])
    ) {
      throw new Mistake("A seed is a whole number of 64 bits, or empty.", this.field("seed"));
    }
    return { model, texts, dimensions, seed };
  }
}

/** A button that starts something, and while it runs stops it. */
export class RunButton {
  constructor(button) {
    this.button = button;
    this.words = button.textContent;
    this.running = null;
  }

  /** Run `work` with a signal, unless it runs already: then stop it. */
  async press(work) {
    if (this.running) {
      this.running.abort();
      return;
    }
    this.running = new AbortController();
    say(this.button, "Stop");
    try {
      await work(this.running.signal);
    } finally {
      this.running = null;
      say(this.button, this.words);
    }
  }
}

// What is plugged into what, and how often the gateway is asked.

import { Api, Key } from "./api.js";
import { byId, say } from "./dom.js";
import { Inventory } from "./inventory.js";
import { Live } from "./live.js";
import { Playground } from "./playground.js";
import { Reproducibility } from "./reproducibility.js";
import { firstCall } from "./snippets.js";

const METRICS_EVERY = 2_000;
const MODELS_EVERY = 15_000;
/** What an answer took, times this, is waited at least: a page must not keep a gateway busy. */
const PATIENCE = 30;
const USUAL_MODEL = "text-embedding-3-small";
const THEMES = ["auto", "light", "dark"];
const BASE_URL = new URL("v1", document.baseURI).href;

/** Return one of the browser's storages; null where it may not be used. */
function storage(name) {
  try {
    return window[name];
  } catch {
    return null;
  }
}

const key = new Key(storage("sessionStorage"));
const api = new Api(key, () => askForKey());
const live = new Live();
const inventory = new Inventory();
const playground = new Playground(api, BASE_URL);
const reproducibility = new Reproducibility(api);

// --- The key ---------------------------------------------------------------------------------

function askForKey() {
  byId("key").hidden = false;
  byId("key-button").hidden = false;
  byId("key-forget").hidden = !key.value;
  if (key.value) say(byId("key-said"), "The gateway does not take this key.");
}

async function tryKey(event) {
  event.preventDefault();
  key.set(byId("key-input").value.trim());
  byId("key-input").value = "";
  say(byId("key-said"), "");
  const taken = await refreshModels();
  refreshMetrics();
  playground.snippets();
  if (!taken) return;
  byId("key").hidden = true;
  byId("key-button").focus();
}

function forgetKey() {
  key.set("");
  location.reload();
}

byId("key-form").addEventListener("submit", tryKey);
byId("key-forget").addEventListener("click", forgetKey);
byId("key-button").addEventListener("click", () => {
  byId("key").hidden = false;
  byId("key-forget").hidden = !key.value;
  byId("key-input").focus();
});
byId("key-button").hidden = !key.value;

// --- What the gateway says of itself -----------------------------------------------------------

/** Say why a part of the page has nothing to show, in place of it or above what it had. */
function why(error, elsewhere) {
  if (error.status === 401) return "This needs a key.";
  if (error.status === 403) return error.message;
  return error.code === "unknown_url" ? elsewhere : error.message;
}

async function refreshMetrics() {
  const said = byId("live-said");
  try {
    const text = await (await api.read("metrics")).text();
    const reading = live.take(text, performance.now());
    inventory.takeReading(reading, live.ring.lately(60));
    const version = reading.scrape.of("build_info")[0]?.labels.get("version");
    if (version) say(byId("version"), `Embedding gateway ${version}`);
    said.hidden = true;
    byId("live-body").hidden = false;
  } catch (error) {
    say(
      said,
      why(
        error,
        "The metrics are not served at this address: the config has [server] admin. " +
          "Open this page there to see them.",
      ),
    );
    said.hidden = false;
    byId("live-body").hidden = live.ring.last === null;
  }
}

async function refreshModels() {
  try {
    const models = (await (await api.read("v1/models")).json()).data;
    inventory.takeModels(models);
    const names = models.filter(({ task }) => task !== "chat").map(({ id }) => id);
    playground.models(names);
    reproducibility.models(names);
    say(byId("first-call"), firstCall(BASE_URL, names[0] ?? USUAL_MODEL, key.value !== ""));
    reach(null);
    return true;
  } catch (error) {
    inventory.takeModels(null, why(error, "Not served at this address."));
    say(byId("first-call"), firstCall(BASE_URL, USUAL_MODEL, error.status === 401));
    reach(error);
    return false;
  }
}

/** The playground, the comparison and the address to copy are of use only where the API is. */
function reach(error) {
  const apart = error?.code === "unknown_url";
  for (const name of ["playground", "repro"]) {
    byId(`${name}-body`).hidden = apart;
    byId(`${name}-away`).hidden = !apart;
    say(
      byId(`${name}-away`),
      apart
        ? "This is the admin listener, which embeds nothing. Open this page at the API’s own " +
            "address to use this part."
        : "",
    );
  }
  byId("start-api").hidden = apart;
}

async function refreshStatus() {
  const { status, engines } = await api.readiness();
  const shown = byId("status");
  say(shown, status === "unreachable" ? "not reachable" : status);
  shown.dataset.state = status;
  inventory.takeEngines(engines);
}

/** Ask now, and again so long after each answer; not while nobody looks. */
function repeat(refresh, milliseconds) {
  let timer;
  let asking = false;
  const again = async () => {
    clearTimeout(timer);
    if (document.hidden || asking) return;
    asking = true;
    const began = performance.now();
    await refresh();
    asking = false;
    timer = setTimeout(again, Math.max(milliseconds, PATIENCE * (performance.now() - began)));
  };
  document.addEventListener("visibilitychange", again);
  again();
}

// --- Introduction, theme, copying --------------------------------------------------------------

function showTheme() {
  say(byId("theme-name"), `Theme: ${document.documentElement.dataset.theme ?? "auto"}`);
}

function introduce(shown) {
  byId("about").hidden = !shown;
  byId("about-show").hidden = shown;
  if (shown) storage("localStorage")?.removeItem("introduced");
  else storage("localStorage")?.setItem("introduced", "yes");
}

byId("about-hide").addEventListener("click", () => {
  introduce(false);
  byId("main").focus();
});
byId("about-show").addEventListener("click", () => {
  introduce(true);
  byId("about").scrollIntoView();
});
if (storage("localStorage")?.getItem("introduced")) introduce(false);

byId("theme-button").addEventListener("click", () => {
  const root = document.documentElement;
  const next = THEMES[(THEMES.indexOf(root.dataset.theme ?? "auto") + 1) % THEMES.length];
  if (next === "auto") delete root.dataset.theme;
  else root.dataset.theme = next;
  storage("localStorage")?.setItem("theme", next);
  showTheme();
});

async function copy(button) {
  const source = byId(button.dataset.copies);
  const text = source.value ?? source.textContent;
  try {
    // There is no clipboard over plain HTTP, but for loopback.
    await navigator.clipboard.writeText(text);
    say(button, "Copied");
  } catch {
    if (source.select) source.select();
    else getSelection().selectAllChildren(source);
    say(button, "Selected");
  }
  setTimeout(() => say(button, "Copy"), 2000);
}

for (const button of document.querySelectorAll("[data-copies]")) {
  button.addEventListener("click", () => copy(button));
}

byId("base-url").value = BASE_URL;
say(byId("first-call"), firstCall(BASE_URL, USUAL_MODEL, false));
showTheme();
repeat(refreshMetrics, METRICS_EVERY);
repeat(refreshStatus, METRICS_EVERY);
repeat(refreshModels, MODELS_EVERY);

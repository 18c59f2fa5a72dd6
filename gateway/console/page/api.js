// Everything that goes over the wire: to this address only, with the key that was typed in here.

const KEPT = "key";
const DETAIL = /detail="((?:[^"\\]|\\.)*)"/;

/** An answer that is not what was asked for. `status` is 0 where there was none. */
export class Refused extends Error {
  constructor(message, status, code) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/** The key, in this tab's own storage; where storage is forbidden, in this page only. */
export class Key {
  constructor(storage) {
    this.storage = storage;
    this.value = storage?.getItem(KEPT) ?? "";
  }

  set(value) {
    this.value = value;
    if (value) this.storage?.setItem(KEPT, value);
    else this.storage?.removeItem(KEPT);
  }
}

export class Api {
  /** `onLocked` is called when an answer says that a key is needed, or that this one is wrong. */
  constructor(key, onLocked) {
    this.key = key;
    this.onLocked = onLocked;
  }

  /** Return a good Response; raise Refused otherwise. Paths are relative to this page's. */
  async ask(path, { headers = {}, ...options } = {}) {
    const sent = new Headers(headers);
    if (this.key.value) sent.set("authorization", `Bearer ${this.key.value}`);
    const answer = await fetch(path, {
      ...options,
      headers: sent,
      credentials: "omit",
      redirect: "error",
    }).catch((error) => {
      if (error.name === "AbortError") throw error;
      throw new Refused("The gateway cannot be reached.", 0);
    });
    if (answer.ok) return answer;
    if (answer.status === 401) this.onLocked();
    throw await refusal(answer);
  }

  /** Return what a GET says now. */
  async read(path) {
    return this.ask(path, { cache: "no-store" });
  }

  /** Return what /health/ready says, though its status be 503. */
  async readiness() {
    const options = { cache: "no-store", credentials: "omit" };
    try {
      return await (await fetch("health/ready", options)).json();
    } catch {
      return { status: "unreachable", engines: {} };
    }
  }

  /**
   * Embed texts in one request: {vectors: Float32Array[], tokens, sources, unshared, truncated,
   * milliseconds}. `request` is {model, texts, dimensions, seed}, the last two as digits or "".
   */
  async embed(request, { fresh = false, signal } = {}) {
    const headers = { "content-type": "application/json" };
    // Said by us alone: a fetch with `cache: "no-store"` would say the same for every request.
    if (fresh) headers["cache-control"] = "no-cache";
    const body = bodyOf(request, "base64");
    const answer = await this.ask("v1/embeddings", { method: "POST", headers, body, signal });
    const told = await answer.json();
    const detail = DETAIL.exec(answer.headers.get("cache-status") ?? "")?.[1] ?? "";
    return {
      vectors: told.data.map((item) => floats(item.embedding)),
      tokens: told.usage.prompt_tokens,
      sources: new Map([...detail.matchAll(/([a-z-]+)=(\d+)/g)].map((m) => [m[1], Number(m[2])])),
      unshared: detail.includes("unshared"),
      truncated: answer.headers.has("x-gateway-truncated"),
      // Within the gateway: what this browser takes for it would say more about the browser.
      milliseconds: Number(answer.headers.get("openai-processing-ms")),
    };
  }
}

async function refusal(answer) {
  const error = await answer.json().then(
    (body) => body?.error,
    () => null,
  );
  const words = error?.message ?? `The gateway answered ${answer.status}.`;
  return new Refused(String(words), answer.status, error?.code);
}

/** Return the JSON of a request for embeddings. Written so that a seed keeps all its 64 bits. */
export function bodyOf({ model, texts, dimensions, seed }, encoding, indent) {
  const body = { model, input: texts };
  if (dimensions) body.dimensions = Number(dimensions);
  if (encoding) body.encoding_format = encoding;
  const written = JSON.stringify(body, null, indent);
  if (!seed) return written;
  const [line, end] = indent ? [`\n${" ".repeat(indent)}`, "\n"] : ["", ""];
  return `${written.slice(0, -1).trimEnd()},${line}"seed": ${BigInt(seed)}${end}}`;
}

/** Return the float32 numbers of little-endian bytes in base64, bit for bit. */
export function floats(base64) {
  const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  return Float32Array.from({ length: bytes.length / 4 }, (_, i) => view.getFloat32(4 * i, true));
}

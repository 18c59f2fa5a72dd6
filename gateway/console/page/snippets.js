// The same request as others would write it.

import { bodyOf } from "./api.js";

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
/** JSON's texts are Python's too, but for halves of surrogate pairs, which are no texts at all. */
const python = (value) => JSON.stringify(value);

/** Return a command for a shell. With `locked` it sends a key, taken from the environment. */
export function curl(request, baseUrl, locked) {
  const lines = [
    `curl ${quoted(`${baseUrl}/embeddings`)}`,
    `  -H 'Content-Type: application/json'`,
    ...(locked ? ['  -H "Authorization: Bearer $GATEWAY_KEY"'] : []),
    `  -d ${quoted(bodyOf(request, null, 2))}`,
  ];
  return lines.join(" \\\n");
}

/** Return a script for OpenAI's own library. */
export function openai({ model, texts, dimensions, seed }, baseUrl, locked) {
  const key = locked ? 'os.environ["GATEWAY_KEY"]' : '"any"';
  const options = [
    `    model=${python(model)},`,
    ...(dimensions ? [`    dimensions=${Number(dimensions)},`] : []),
    ...(seed ? [`    extra_body={"seed": ${BigInt(seed)}},`] : []),
    "    input=[",
    ...texts.map((text) => `        ${python(text)},`),
    "    ],",
  ];
  return [
    ...(locked ? ["import os", ""] : []),
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url=${python(baseUrl)}, api_key=${key})`,
    "answer = client.embeddings.create(",
    ...options,
    ")",
    "vectors = [item.embedding for item in answer.data]",
    "",
  ].join("\n");
}

/** Return the first call of a newcomer. */
export function firstCall(baseUrl, model, locked) {
  return [
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url=${python(baseUrl)},`,
    `                api_key="${locked ? "YOUR_KEY" : "any"}")`,
    "client.embeddings.create(",
    `    model=${python(model)}, input="Hello.")`,
  ].join("\n");
}

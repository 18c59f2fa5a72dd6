// A story, word by word as it is told: OpenAI's SDK for Node reads a stream.
//
// It has a seed, so the second run is told the same story, at once: the gateway kept the first.
//
// Start the gateway with OPENAI_API_KEY=… scripts/serve, and once: npm install --prefix examples
// --no-save openai. Then: node examples/node_stream.mjs
// Another model is named behind it: node examples/node_stream.mjs NAME

import OpenAI from "openai";

const client = new OpenAI({
  baseURL: process.env.GATEWAY_URL ?? "http://127.0.0.1:8000/v1",
  apiKey: "anything",
});
const { data: stream, response } = await client.chat.completions
  .create({
    model: process.argv[2] ?? "gpt-4o-mini",
    messages: [{ role: "user", content: "Tell a story of a journey to Mars in three sentences." }],
    max_tokens: 150,
    seed: 123,
    stream: true,
    stream_options: { include_usage: true },
  })
  .withResponse();

let pieces = 0;
let last;
for await (const chunk of stream) {
  const piece = chunk.choices[0]?.delta.content ?? "";
  process.stdout.write(piece);
  pieces += piece === "" ? 0 : 1;
  last = chunk;
}

console.log(`\n\n${pieces} pieces, ${last.usage?.completion_tokens} tokens`);
console.log(`system_fingerprint: ${last.system_fingerprint}`);
console.log(`Cache-Status: ${response.headers.get("cache-status")}`);

// Chats through OpenAI's SDK for Node: node chat.mjs BASE_URL
//
// Reads {"models": […], "messages": …, "tools": …} from stdin. Writes, for each model, what came of
// answers as a whole and streamed, with tools and in JSON, and the errors of a mistake.

import { text } from "node:stream/consumers";
import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

const { models, messages, tools } = JSON.parse(await text(process.stdin));
const client = new OpenAI({ baseURL: process.argv[2], apiKey: "any", maxRetries: 0 });
const completions = client.chat.completions;
const Place = z.object({ planet: z.enum(["Mars", "Venus"]), landed: z.boolean() });

async function streamed(body) {
  const chunks = [];
  for await (const chunk of await completions.create({ ...body, stream: true })) chunks.push(chunk);
  const said = chunks.flatMap((chunk) => chunk.choices.map((choice) => choice.delta.content ?? ""));
  return { chunks: chunks.length, text: said.join(""), usage: chunks.at(-1).usage };
}

async function chat(model) {
  const asked = { model, messages, max_completion_tokens: 40 };
  const { data: whole, response } = await completions.create({ ...asked, seed: 1 }).withResponse();
  const usage = { stream_options: { include_usage: true } };
  const helper = completions.stream({ ...asked, seed: 1 });
  const calling = { model, messages, tools, tool_choice: "required", parallel_tool_calls: false };
  const called = (await completions.create(calling)).choices[0].message;
  const result = { role: "tool", tool_call_id: called.tool_calls[0].id, content: "20 degrees" };
  const response_format = zodResponseFormat(Place, "place");
  return {
    whole: whole.choices[0].message.content,
    fingerprint: whole.system_fingerprint,
    cache: response.headers.get("cache-status"),
    streamed: await streamed({ ...asked, ...usage, seed: 1 }),
    unseeded: await streamed(asked),
    helper: (await helper.finalChatCompletion()).choices[0].message.content,
    calls: [called.tool_calls[0].function, await completions.stream(calling).finalFunctionToolCall()],
    heard: await streamed({ ...asked, messages: [...messages, called, result] }),
    parsed: [
      (await completions.parse({ model, messages, response_format })).choices[0].message.parsed,
      (await completions.stream({ model, messages, response_format }).finalMessage()).parsed,
    ],
  };
}

const errors = [];
for (const wrong of [{ model: "none", messages }, { model: models[0], messages: [] }]) {
  const refused = await completions.create({ ...wrong, stream: true }).catch((error) => error);
  errors.push([refused.constructor.name, refused.status, refused.param]);
}
const answers = Object.fromEntries(
  await Promise.all(models.map(async (model) => [model, await chat(model)])),
);
console.log(JSON.stringify({ answers, errors }));

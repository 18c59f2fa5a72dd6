// Chats through the AI SDK: node ai_sdk.mjs BASE_URL
//
// Reads {"models": […], "prompt": …} from stdin. Writes, for each model, what came of generateText
// and streamText: texts, tokens, calls of tools, objects, a second step after a tool's result.

import { text } from "node:stream/consumers";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, isStepCount, Output, streamText, tool } from "ai";
import { z } from "zod";

const { models, prompt } = JSON.parse(await text(process.stdin));
const provider = createOpenAICompatible({
  name: "gateway",
  baseURL: process.argv[2],
  apiKey: "any",
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const Place = z.object({ planet: z.enum(["Mars", "Venus"]), landed: z.boolean() });
const weather = tool({
  description: "Tell the weather of a planet.",
  inputSchema: Place,
  execute: async ({ planet }) => `20 degrees on ${planet}`,
});

async function chat(name) {
  const asked = { model: provider(name), prompt, maxOutputTokens: 40, maxRetries: 0 };
  const seeded = { ...asked, seed: 1 };
  const longer = { ...asked, maxOutputTokens: 400 };
  const stream = streamText(seeded);
  const parts = [];
  for await (const part of stream.textStream) parts.push(part);
  const whole = await generateText(seeded);
  const calling = {
    ...longer,
    tools: { weather },
    toolChoice: "required",
    providerOptions: { gateway: { parallel_tool_calls: false } },
  };
  const called = await generateText(calling);
  const streamedCall = streamText(calling);
  await streamedCall.consumeStream();
  const output = Output.object({ schema: Place });
  const streamedObject = streamText({ ...longer, output });
  await streamedObject.consumeStream();
  return {
    whole: whole.text,
    parts,
    tokens: [whole.usage.totalTokens, (await stream.usage).totalTokens],
    finished: [whole.finishReason, await stream.finishReason],
    results: [called.toolResults[0], (await streamedCall.toolResults)[0]],
    objects: [(await generateText({ ...longer, output })).output, await streamedObject.output],
  };
}

const refused = await generateText({ model: provider("none"), prompt, maxRetries: 0 }).catch(
  (error) => error,
);
const answers = Object.fromEntries(
  await Promise.all(models.map(async (model) => [model, await chat(model)])),
);
// The tool is called, its result goes back, and the model answers.
const { steps } = await generateText({
  model: provider(models[0]),
  prompt: `${prompt} Ask weather.`,
  tools: { weather },
  stopWhen: isStepCount(3),
});
const finished = steps.map((step) => step.finishReason);
console.log(JSON.stringify({ answers, steps: finished, error: refused.statusCode }));

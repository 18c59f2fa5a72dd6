// Asks a gateway through OpenAI's SDK for Node: node embeddings.mjs BASE_URL
//
// Reads {"model": …, "input": …} from stdin. Writes the vectors of the SDK's default settings and
// of encoding_format "float", as JSON, and the error of a model that is not there.

import { text } from "node:stream/consumers";
import OpenAI from "openai";

const { model, input } = JSON.parse(await text(process.stdin));
const client = new OpenAI({ baseURL: process.argv[2], apiKey: "any", maxRetries: 0 });
const vectors = async (options) => {
  const answer = await client.embeddings.create({ model, input, ...options });
  return answer.data.map((item) => Array.from(item.embedding));
};

const refused = await client.embeddings.create({ model: "none", input }).catch((error) => error);
const error = { name: refused.constructor.name, status: refused.status, code: refused.code };

const answer = {
  defaults: await vectors({}),
  float: await vectors({ encoding_format: "float" }),
  models: (await client.models.list()).data.map((served) => served.id),
  error,
};
console.log(JSON.stringify(answer));

// Holds Kubernetes manifests against the schemas of their kinds: a JSON list of them comes in, and a
// list of what is wrong goes out. Kubernetes drops a field that it does not know; here it is an
// error, and unknown is what the validator of a kind never looks at.

import { readFileSync } from "node:fs";

async function modelOf({ apiVersion, kind }) {
  const operator = apiVersion.startsWith("monitoring.coreos.com/");
  const home = operator ? "@kubernetes-models/prometheus-operator" : "kubernetes-models";
  const models = await import(`${home}/${apiVersion}/${kind}`);
  return models[kind];
}

/** The value, and what it holds, noting the path of every field that somebody reads. */
function watched(value, path, read) {
  if (typeof value !== "object" || value === null) return value;
  return new Proxy(value, {
    get(target, name) {
      if (typeof name !== "string" || !Object.hasOwn(target, name)) return target[name];
      read.add(`${path}/${name}`);
      return watched(target[name], `${path}/${name}`, read);
    },
  });
}

function* fields(value, path = "") {
  if (typeof value !== "object" || value === null) return;
  for (const [name, inner] of Object.entries(value)) {
    yield `${path}/${name}`;
    yield* fields(inner, `${path}/${name}`);
  }
}

async function wrongWith(manifest) {
  const Model = await modelOf(manifest);
  const read = new Set();
  try {
    Model.prototype.validate.call(watched(manifest, "", read));
  } catch (error) {
    return [error.message];
  }
  return [...fields(manifest)].filter((path) => !read.has(path)).map((path) => `${path}: unknown`);
}

const wrong = [];
for (const manifest of JSON.parse(readFileSync(0, "utf-8"))) {
  for (const problem of await wrongWith(manifest)) {
    wrong.push(`${manifest.kind} ${manifest.metadata.name}: ${problem}`);
  }
}
console.log(JSON.stringify(wrong));

// Run a scenario with the official SDK: `run.mjs NOUN.SCENARIO JSON-ARGUMENTS`. Prints one JSON object.
//
// A scenario is an exported function of one of the modules beside this one, called with the SDK, a client and the
// arguments. `value` is what it returned, `calls` the public methods of the SDK that were called, `requests` what was sent.

import { readdirSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const sdk = createRequire(join(process.env.OFFICIAL_NPM, "package.json"))("@pandastack/sdk");
const own = ["run.mjs", "seen.mjs"];

// The names of those that need no arguments, for a caller that wants to run them all.
async function scenarios() {
  const names = [];
  for (const file of readdirSync(dirname(fileURLToPath(import.meta.url))).filter((name) => !own.includes(name)).sort())
    for (const [name, scenario] of Object.entries(await import(`./${file}`)))
      if (scenario.length <= 2) names.push(`${file.replace(".mjs", "")}.${name}`);
  return names;
}

// Every public method of the SDK: owner, name, label.
function* methods(client) {
  const sandbox = sdk.Sandbox.fromInfo({ id: "none" }, client);
  const prototypes = new Set([sdk.CodeContext.prototype]);
  for (const each of [client, sandbox, ...Object.values(client), ...Object.values(sandbox)])
    if (each && each.constructor !== Object && typeof each === "object") prototypes.add(Object.getPrototypeOf(each));
  for (const prototype of prototypes)
    for (const owner of prototype === Object.getPrototypeOf(sandbox) ? [prototype, sdk.Sandbox] : [prototype])
      for (const [name, { value }] of Object.entries(Object.getOwnPropertyDescriptors(owner)))
        if (typeof value === "function" && name !== "constructor" && name !== "fromInfo" && !name.startsWith("_"))
          yield [owner, name, `${prototype.constructor.name.replace(/^_/, "")}.${name}`];
}

// From now on, the names of the methods that are called.
function recordCalls(client) {
  const called = new Set();
  for (const [owner, name, label] of [...methods(client)]) {
    const original = owner[name];
    owner[name] = function (...given) {
      called.add(label);
      return original.apply(this, given);
    };
  }
  return called;
}

// From now on, what is sent, attempts that were repeated included.
function recordRequests() {
  const sent = [];
  const send = globalThis.fetch;
  globalThis.fetch = (url, init) => {
    sent.push(`${init?.method ?? "GET"} ${new URL(url).pathname}`);
    return send(url, init);
  };
  return sent;
}

const [name, given] = process.argv.slice(2);
const client = new sdk.Client();
const [noun, scenario] = name.split(".");
const surface = () => [...new Set([...methods(client)].map(([, , label]) => label))].sort();
const chosen = noun === "run" ? { scenarios, surface }[scenario] : (await import(`./${noun}.mjs`))[scenario];
const sent = recordRequests();
const calls = noun === "run" ? new Set() : recordCalls(client);
const value = (await chosen(sdk, client, JSON.parse(given))) ?? null;
console.log(JSON.stringify({ value, calls: [...calls].sort(), requests: sent }));
process.exit(0);  // the SDK leaves connections open that it no longer reads

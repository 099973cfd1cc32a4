// A host that is full: this SDK never tries again.

import * as seen from "./seen.mjs";

export async function refused(_sdk, client, { parent }) {
  const before = (await client.sandboxes.list()).length;
  const sandbox = await client.sandboxes.get(parent);
  return {
    create: await seen.error(() => client.sandboxes.create({ template: "base" })),
    fork: await seen.error(() => sandbox.fork()),
    fork_tree: await seen.error(() => sandbox.forkTree({ count: 2 })),
    made: (await client.sandboxes.list()).length - before,
  };
}

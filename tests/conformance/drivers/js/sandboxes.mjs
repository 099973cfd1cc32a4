// Create, look, delete.

import * as seen from "./seen.mjs";

// Everything that is done with records.
export async function life(sdk, client) {
  const metadata = { "a.b": "c", "secret.key": "hidden" };
  const made = await client.sandboxes.create({ template: "base", ttlSeconds: 120, metadata, cpu: 2, memoryMb: 1024 });
  const ready = await made.exec("echo ready");
  const told = {
    made: seen.sandbox(made),
    ready: seen.result(ready),
    duration_ms: ready.duration_ms,
    got: seen.sandbox(await client.sandboxes.get(made.id)),
    got_by_class: seen.sandbox(await sdk.Sandbox.get(made.id, client)),
    listed: (await client.sandboxes.list()).map((each) => each.id),
    listed_by_class: (await sdk.Sandbox.list(client)).map((each) => each.id),
  };
  await client.sandboxes.delete(made.id);
  return {
    ...told,
    get_after: await seen.error(() => client.sandboxes.get(made.id)),
    delete_after: await seen.error(() => made.kill()),
    exec_after: await seen.error(() => made.exec("true")),
  };
}

// What a client that names nothing gets; disposal deletes whatever its settings are.
export async function defaults(sdk, client) {
  const made = await sdk.Sandbox.create({}, client);
  const fresh = await client.request("GET", `/sandboxes/${made.id}`);
  await made[Symbol.asyncDispose]();
  const kept = await sdk.Sandbox.create({ template: "base", persistent: true }, client);
  const still = (await client.sandboxes.get(kept.id)).info.persistent;
  await kept.kill();
  return {
    template: made.template,
    persistent: fresh.persistent,
    gone: await seen.error(() => client.sandboxes.get(made.id)),
    kept: still,
  };
}

// What a server refuses, as the caller learns of it.
export async function refusals(sdk, client) {
  const create = (options) => seen.error(() => client.sandboxes.create(options));
  const stranger = new sdk.Client({ apiKey: `pds_${"0".repeat(32)}` });
  return {
    template: await create({ template: "no-such-template" }),
    ttl: await create({ template: "base", ttlSeconds: -1 }),
    long_ttl: await create({ template: "base", ttlSeconds: 2 ** 40 }),
    snapshot: await create({ fromSnapshot: "00000000-0000-4000-8000-000000000000" }),
    volume: await create({ template: "base", volumes: [{ name: "none" }] }),
    token: await seen.error(() => stranger.me()),
  };
}

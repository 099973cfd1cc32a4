// Databases: made, copied, changed, deleted.

import * as seen from "./seen.mjs";

export async function life(_sdk, client) {
  const made = await client.databases.create({ label: "conformance" });
  const one = made.id;
  const told = {
    made,
    got: await client.databases.get(one),
    listed: (await client.databases.list()).filter((each) => each.id === one),
    connection: await client.databases.connection(one),
    updated: await client.databases.update(one, { always_on: true }),
    woken: await client.databases.wake(one),
    ready: await client.databases.waitUntilReady(one, 60000),
    renewed: await client.databases.resetCredentials(one),
    copy: await client.databases.clone(one),
    size: await seen.error(() => client.databases.create({ size: "3g" })),
    past: await seen.error(() => client.databases.clone(one, { target_time: "2026-01-01T00:00:00Z" })),
    failover: await seen.error(() => client.databases.failover(one)),
    machine: await seen.error(async () => (await client.sandboxes.get(one)).kill()),
  };
  told.begun = await client.databases.clone(one, { label: "at once" }, { wait: false });
  for (const each of [told.begun.id, told.copy.id, one]) {
    await client.databases.delete(each);
  }
  return { ...told, after: await seen.error(() => client.databases.get(one)) };
}

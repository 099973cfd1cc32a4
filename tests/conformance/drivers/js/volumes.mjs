// Volumes: disks that outlive sandboxes.

import { randomUUID } from "node:crypto";

import * as seen from "./seen.mjs";

export async function life(_sdk, client) {
  const name = `conformance-${randomUUID().slice(0, 8)}`;
  const told = {
    made: await client.volumes.create({ name, size_mb: 64 }),
    twice: await seen.error(() => client.volumes.create({ name, size_mb: 64 })),
    bad: await seen.error(() => client.volumes.create({ name: "a/b", size_mb: 64 })),
    large: await seen.error(() => client.volumes.create({ name: "large", size_mb: 65537 })),
  };
  const wanted = { template: "base", volumes: [{ name }] };
  const first = await client.sandboxes.create(wanted);
  await first.exec(`echo kept > /mnt/${name}/file`, { check: true });
  told.holder = first.id;
  told.attached = await client.volumes.get(name);
  told.second = await seen.error(() => client.sandboxes.create(wanted));
  told.in_use = await seen.error(() => client.volumes.delete(name));
  await first.kill();
  const second = await client.sandboxes.create({ template: "base", volumes: [{ name, readOnly: true }] });
  told.read = seen.result(await second.exec(`cat /mnt/${name}/file`));
  told.written = (await second.exec(`touch /mnt/${name}/file`)).exitCode;
  await second.kill();
  told.listed = (await client.volumes.list()).map((each) => each.name);
  await client.volumes.delete(name);
  return {
    ...told,
    after: await seen.error(() => client.volumes.get(name)),
    deleted_twice: await seen.error(() => client.volumes.delete(name)),
  };
}

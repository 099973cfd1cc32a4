// Pause, hibernate, idle limits, console.

import * as seen from "./seen.mjs";

export async function sleep_and_wake(_sdk, client) {
  const sandbox = await client.sandboxes.create({ template: "base", metadata: { a: "b" } });
  await sandbox.exec("setsid sleep 600 </dev/null >/dev/null 2>&1 & echo kept > /root/file", { check: true });
  const status = [];
  const look = async () => status.push((await client.sandboxes.get(sandbox.id)).status);
  for (const step of ["resume", "pause", "pause"]) {
    await sandbox[step]();
    await look();
  }
  const paused = await seen.error(() => sandbox.exec("true"));
  for (const step of ["resume", "hibernate", "hibernate"]) {
    await sandbox[step]();
    await look();
  }
  await sandbox.lifecycle();
  await look();
  const used = seen.result(await sandbox.exec("cat /root/file; pgrep -cx sleep"));
  await look();
  for (const step of ["wake", "hibernate", "wake"]) await sandbox[step]();
  await look();
  const { metadata } = (await client.sandboxes.get(sandbox.id)).info;
  await sandbox.kill();
  return { status, paused, used, metadata };
}

export async function limits(_sdk, client) {
  const sandbox = await client.sandboxes.create({ template: "base", ttlSeconds: 240 });
  const told = {
    first: await sandbox.lifecycle(),
    ttl: await sandbox.setTtl(120),
    persistent: [await sandbox.setPersistent(true), await sandbox.setPersistent(false)],
    negative: await seen.error(() => sandbox.setTtl(-1)),
  };
  await sandbox.kill();
  return told;
}

export async function console(_sdk, client) {
  const sandbox = await client.sandboxes.create({ template: "base" });
  await sandbox.exec("echo 'to the console ü' > /dev/console; echo second > /dev/console", { check: true });
  const [lines, followed] = [[], []];
  for await (const line of sandbox.logs()) lines.push(line);
  for await (const line of sandbox.logs({ stream: "stdout", follow: true })) if (followed.push(line) === 2) break;
  await sandbox.kill();
  return { lines, followed };
}

export async function preview(_sdk, client) {
  client.previewHost = "preview.test";
  const sandbox = await client.sandboxes.create({ template: "base" });
  const told = { id: sandbox.id, url: sandbox.previewUrl(8000), urls: JSON.stringify(await sandbox.previewUrls()) };
  await sandbox.kill();
  return told;
}

// Templates that the server builds from a Dockerfile.

import * as seen from "./seen.mjs";

export async function dockerfile(_sdk, client) {
  const name = "built-by-typescript";
  const text = "FROM base\nCOPY sub/file /file\n";
  const context = { "sub/file": "content\n" };
  const build = await client.templates.buildFromDockerfile({ name, dockerfile: text, context, memoryMb: 256, sizeMb: 512 });
  const lines = [];
  for await (const line of client.templates.buildLogs(build.id)) lines.push(line);
  const ended = await client.templates.waitForBuild(build.id, { intervalMs: 500 });
  const sandbox = await client.sandboxes.create({ template: name });
  const content = seen.result(await sandbox.exec("cat /file"));
  await sandbox.kill();
  return {
    status: [build.status, ended.status, (await client.templates.buildStatus(build.id)).status],
    listed: (await client.templates.builds()).some((each) => each.id === build.id),
    lines,
    content,
    taken: await seen.error(() => client.templates.buildFromDockerfile({ name, dockerfile: "FROM base" })),
    deleted: (await client.templates.delete(name)) ?? null,
    gone: await seen.error(() => client.templates.get(name)),
    again: await seen.error(() => client.templates.delete(name)),
  };
}

export async function image(_sdk, client) {
  const name = "registered-by-typescript";
  const imageRef = process.env.IMAGE;
  const build = await client.templates.register({ name, imageRef, memoryMb: 256, sizeMb: 512 });
  const ended = await client.templates.waitForBuild(build.id, { intervalMs: 500 });
  const sandbox = await client.sandboxes.create({ template: name });
  const content = seen.result(await sandbox.exec("cat /etc/group"));
  await sandbox.kill();
  const other = "registered-no-image";
  const missing = await client.templates.register({ name: other, imageRef: imageRef + "x", sizeMb: 512 });
  const lines = [];
  for await (const line of client.templates.buildLogs(build.id)) lines.push(line);
  return {
    status: [build.status, ended.status],
    lines,
    content,
    missing: await seen.error(() => client.templates.waitForBuild(missing.id, { intervalMs: 500 })),
    malformed: await seen.error(() => client.templates.register({ name: other, imageRef: "no image" })),
  };
}

export async function other_sources(_sdk, client) {
  return {
    root: await seen.error(() => client.templates.build({ name: "from-root", rootfs: new Blob(["x"]) })),
  };
}

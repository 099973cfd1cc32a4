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
  };
}

export async function other_sources(_sdk, client) {
  const image = { name: "from-image", imageRef: "registry.example/image:1" };
  return {
    image: await seen.error(() => client.templates.register(image)),
    root: await seen.error(() => client.templates.build({ name: "from-root", rootfs: new Blob(["x"]) })),
  };
}

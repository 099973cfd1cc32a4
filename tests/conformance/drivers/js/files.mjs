// Files.

import { readFileSync, writeFileSync } from "node:fs";

import * as seen from "./seen.mjs";

export async function everything(_sdk, client) {
  const sandbox = await client.sandboxes.create({ template: "base" });
  const files = sandbox.filesystem;
  const text = "ü\0\r\n".repeat(4096);
  const data = Buffer.from(text);
  const written = await files.write("/workspace/ü b/deep/data.bin", data);
  writeFileSync("local.bin", data);
  const uploaded = await files.upload("local.bin", "/root/up.bin");
  await files.download("/root/up.bin", "copy.bin");
  await sandbox.exec("cd /workspace && mkdir tree && echo 1 > tree/a && ln -s /workspace tree/loop && : > empty");
  const stat = await files.stat("/workspace/ü b/deep/data.bin");
  const walked = [];
  for await (const { dirs, files: found } of files.walk("/workspace")) walked.push(...[...dirs, ...found].map((e) => e.path));
  const none = await files.write("/root/none", "");
  const told = {
    written,
    uploaded,
    same: (await files.read("/workspace/ü b/deep/data.bin")) === text && readFileSync("copy.bin").equals(data),
    text: await files.read("/etc/hostname"),
    empty: [none.bytes, (await files.read("/root/none")).length],
    stat: { ...seen.entry(stat), mtime: stat.mtime, mode: stat.mode },
    stat_directory: seen.entry(await files.stat("/workspace")),
    list: (await files.list("/workspace")).map((each) => [each.name, each.is_dir]).sort(),
    root: (await files.list()).some((each) => each.name === "etc"),
    walk: walked.sort(),
    exists: [await files.exists("/etc/hosts"), await files.exists("/no/such")],
    missing: {
      read: await seen.error(() => files.read("/no/such")),
      stat: await seen.error(() => files.stat("/no/such")),
      list: await seen.error(() => files.list("/no/such")),
    },
    directory: await seen.error(() => files.read("/etc")),
    relative: await seen.error(() => files.write("no/slash", "x")),
  };
  await sandbox.kill();
  return told;
}

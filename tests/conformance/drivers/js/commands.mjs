// Commands and code.

import * as seen from "./seen.mjs";

export async function run(_sdk, client) {
  const sandbox = await client.sandboxes.create({ template: "base" });
  const result = async (cmd) => seen.result(await sandbox.exec(cmd));
  const codes = [];
  for (const cmd of ["/etc/passwd", "no-such-program", "kill -9 $$"]) codes.push((await sandbox.exec(cmd)).exitCode);
  const told = {
    both: await result("echo out; echo err >&2; exit 3"),
    by_commands: seen.result(await sandbox.commands.run("echo $((6*7))")),
    place: await result("id -u; echo $HOME; pwd; cat | wc -c"),
    script: await result(`: ${"x".repeat(300_000)}\necho long`),
    bytes: await result(String.raw`printf 'a\377b'`),
    codes,
    python: seen.result(await sandbox.runCode("import sys; print(len(sys.argv), \"it's\")", "python")),
    shell: seen.result(await sandbox.runCode("echo $((2*16))", "shell")),
    left_behind: await result("setsid sleep 600 </dev/null >/dev/null 2>&1 & echo started"),
    survives: await result("pgrep -cx sleep"),
    check: await seen.error(() => sandbox.exec("exit 9", { check: true })),
    timeout: await seen.error(() => sandbox.exec("sleep 60", { timeoutSeconds: 1 })),
    none: await seen.error(() => sandbox.exec("")),
    after_timeout: await result("pgrep -fcx 'sleep 60' || true"),
  };
  await sandbox.kill();
  return told;
}

export async function stream(_sdk, client) {
  const sandbox = await client.sandboxes.create({ template: "base" });
  let [out, err] = ["", ""];
  const ignored = [];
  const expected = "line\u2028sep\u0085nel\u000b ü 🐼 end";
  await sandbox.filesystem.write("/root/text", expected);
  const callbacks = { onStdout: (chunk) => (out += chunk), onStderr: (chunk) => (err += chunk) };
  const status = await sandbox.execStream("cat /root/text; echo err >&2; exit 4", callbacks);
  const limited = { onStdout: (chunk) => ignored.push(chunk), timeoutSeconds: 1 };
  const told = {
    status,
    out,
    expected,
    err,
    silent: await sandbox.execStream("true"),
    timeout: await seen.error(() => sandbox.execStream("echo a; sleep 60", limited)),
    before_timeout: ignored,
    none: await seen.error(() => sandbox.execStream("")),
  };
  await sandbox.kill();
  return told;
}

// What a stream says whose sandbox is deleted meanwhile.
export async function after_the_end(_sdk, client) {
  const sandbox = await client.sandboxes.create({ template: "base" });
  let killing;
  const onStdout = () => (killing ??= sandbox.kill());
  const outcome = await seen.error(() => sandbox.execStream("echo begun; sleep 60", { onStdout }));
  await killing;
  return { outcome, begun: killing !== undefined };
}

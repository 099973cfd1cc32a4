// Cells of code in sessions that keep their state.

import * as seen from "./seen.mjs";

export async function cells(_sdk, client) {
  const sandbox = await client.sandboxes.create({ template: "code-interpreter" });
  const context = await sandbox.createCodeContext();
  const run = async (code, options) => {
    const done = await context.runCode(code, options);
    const { stdout, stderr, exit_code: exit, error = null, text = null } = done;
    return { stdout, stderr, exit, error, text, results: done.results.map((result) => result.data) };
  };
  const rich = [
    "class Rich:",
    "    def _repr_html_(self): return '<b>ü</b>'",
    "    def _repr_json_(self): return {'a': 1}",
    "Rich()",
  ].join("\n");
  const told = {
    id: context.id,
    none: await run("x = 41"),
    value: await run("import sys\nprint('out'); print('err', file=sys.stderr)\nx + 1"),
    raised: await run("1 / 0"),
    kept: await run("x"),
    rich: await run(rich),
    late: await seen.error(() => run("import time\ntime.sleep(60)", { timeoutSeconds: 1 })),
    after: await run("x"),
    empty: await seen.error(() => run("")),
  };
  await context.close();
  told.closed = await seen.error(() => context.runCode("1"));
  told.language = await seen.error(() => sandbox.createCodeContext("cobol"));
  await sandbox.kill();
  return told;
}

// Functions: made, called, changed, deployed again, deleted.

import { gunzipSync } from "node:zlib";

import * as seen from "./seen.mjs";

const SOURCE = `import os
def handler(event, context):
    print("said")
    return {"event": event, "key": os.environ["KEY"]}
`;
const SECOND = "def handler(event, context):\n    return 2\n";
const BROKEN = "import nothere\ndef handler(event, context):\n    pass\n";

export async function life(_sdk, client) {
  const { functions } = client;
  const made = await functions.create("conformance", "python", SOURCE, { env: { KEY: "value" } });
  const one = made.id;
  const told = {
    made,
    source: SOURCE,
    got: await functions.get(one),
    listed: (await functions.list()).filter((each) => each.id === one),
    code: gunzipSync(Buffer.from(await functions.getCode(one))).toString(),
    run: await functions.invoke(one, { n: 1 }),
    triggered: await functions.trigger(one),
    recorded: await functions.recordRun(one, { status: "error", exit_code: 3 }),
    twice: await seen.error(() => functions.create("conformance", "python", SOURCE)),
    broken: await seen.error(() => functions.deployBundle(one, Buffer.from(BROKEN), "handler.py")),
    updated: await functions.update(one, { name: "renamed", env: { KEY: "v" }, public: true }),
    deployed: await functions.deployBundle(one, Buffer.from(SECOND), "handler.py"),
  };
  told.again = await functions.invoke(one);
  told.runs = await functions.runs(one);
  told.listedRuns = await functions.listRuns(one);
  told.metrics = await functions.metrics(one);
  const another = await functions.deploy({ name: "another", runtime: "python", code: SECOND });
  await functions.delete(another.id);
  await functions.delete(one);
  return { ...told, after: await seen.error(() => functions.get(one)) };
}

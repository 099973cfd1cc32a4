// Functions: made, called, run by a schedule, changed, deployed again, deleted.

import { randomBytes } from "node:crypto";
import { gunzipSync } from "node:zlib";

import * as seen from "./seen.mjs";

const SOURCE = `import os
def handler(event, context):
    print("said")
    return {"event": event, "key": os.environ["KEY"]}
`;
const SECOND = "def handler(event, context):\n    return 2\n";
const BROKEN = "import nothere\ndef handler(event, context):\n    pass\n";

async function scheduled(schedules, name, function_id) {
  const made = await schedules.create({ name, function_id, cron: "0 3 * * *" });
  const one = made.id;
  const told = {
    made,
    got: await schedules.get(one),
    listed: (await schedules.list()).map((each) => each.id),
    paused: await schedules.update(one, { paused: true }),
    triggered: await schedules.trigger(one),
    runs: await schedules.runs(one),
    listedRuns: await schedules.listRuns(one),
  };
  await schedules.delete(one);
  return { ...told, after: await seen.error(() => schedules.get(one)) };
}

export async function life(_sdk, client) {
  const { functions } = client;
  const name = `conformance-${randomBytes(4).toString("hex")}`;
  const made = await functions.create(name, "python", SOURCE, { env: { KEY: "value" } });
  const one = made.id;
  const told = {
    made,
    source: SOURCE,
    got: await functions.get(one),
    listed: (await functions.list()).filter((each) => each.id === one),
    code: gunzipSync(Buffer.from(await functions.getCode(one))).toString(),
    run: await functions.invoke(one, { n: 1 }),
    triggered: await functions.trigger(one),
    schedule: await scheduled(client.schedules, name, one),
    recorded: await functions.recordRun(one, { status: "error", exit_code: 3 }),
    twice: await seen.error(() => functions.create(name, "python", SOURCE)),
    broken: await seen.error(() => functions.deployBundle(one, Buffer.from(BROKEN), "handler.py")),
    updated: await functions.update(one, { name: `${name}-renamed`, env: { KEY: "v" }, public: true }),
    deployed: await functions.deployBundle(one, Buffer.from(SECOND), "handler.py"),
  };
  told.again = await functions.invoke(one);
  told.runs = await functions.runs(one);
  told.listedRuns = await functions.listRuns(one);
  told.metrics = await functions.metrics(one);
  const another = await functions.deploy({ name: `${name}-another`, runtime: "python", code: SECOND });
  await functions.delete(another.id);
  await functions.delete(one);
  return { ...told, after: await seen.error(() => functions.get(one)) };
}

// Schedules that there are not. Those that there are run functions: see their scenario.

import * as seen from "./seen.mjs";

const NONE = "00000000-0000-4000-8000-000000000000";

export async function life(_sdk, client) {
  const wanted = { name: "nightly", function_id: NONE, cron: "0 3 * * *" };
  return {
    listed: await client.schedules.list(),
    unknown: await seen.error(() => client.schedules.create(wanted)),
    cron: await seen.error(() => client.schedules.create({ ...wanted, cron: "never" })),
    got: await seen.error(() => client.schedules.get(NONE)),
    updated: await seen.error(() => client.schedules.update(NONE, { paused: true })),
    triggered: await seen.error(() => client.schedules.trigger(NONE)),
    runs: await seen.error(() => client.schedules.runs(NONE)),
    deleted: await seen.error(() => client.schedules.delete(NONE)),
  };
}

// Snapshots, forks, trees, experiments.

import * as seen from "./seen.mjs";

export async function snapshots(_sdk, client) {
  const source = await client.sandboxes.create({ template: "base" });
  await source.exec("echo then > /root/file; echo memory > /run/file", { check: true });
  const snapshot = (await source.snapshot()).id;
  await source.exec("echo later > /root/file", { check: true });
  const ids = (listed) => listed.map((each) => each.id);
  const told = {
    source: source.id,
    snapshot,
    listed: ids(await client.snapshots.list()).includes(snapshot),
    of_sandbox: ids(await client.snapshots.list({ sandbox_id: source.id })),
    got: await client.snapshots.get(snapshot),
    runs_on: seen.result(await source.exec("cat /root/file")),
  };
  await source.kill();
  const restored = await client.sandboxes.create({ template: "no-such-template", fromSnapshot: snapshot });
  told.restored = seen.sandbox(restored);
  told.content = seen.result(await restored.exec("cat /root/file /run/file"));
  await restored.kill();
  await client.snapshots.delete(snapshot);
  return {
    ...told,
    get_after: await seen.error(() => client.snapshots.get(snapshot)),
    create_after: await seen.error(() => client.sandboxes.create({ fromSnapshot: snapshot })),
  };
}

export async function fork(_sdk, client) {
  const parent = await client.sandboxes.create({ template: "base", ttlSeconds: 100, metadata: { a: "1", b: "1" } });
  await parent.exec("echo shared > /root/file; setsid sleep 600 </dev/null >/dev/null 2>&1 &", { check: true });
  const child = await parent.fork({ metadata: { b: "2" } });
  const bare = await parent.fork();
  await child.exec("echo changed > /root/file");
  const files = [];
  for (const each of [parent, child, bare]) files.push(seen.result(await each.exec("cat /root/file; pgrep -cx sleep")));
  const told = {
    parent: seen.sandbox(parent),
    child: seen.sandbox(child),
    bare: seen.sandbox(bare),
    ttl: (await child.lifecycle()).ttl_seconds,
    persistent: child.info.persistent,
    files,
  };
  for (const each of [parent, child, bare]) await each.kill();
  return told;
}

export async function tree(_sdk, client) {
  const parent = await client.sandboxes.create({ template: "base", metadata: { a: "1" } });
  const children = await parent.forkTree({ count: 3, metadata: { b: "2" } });
  const others = await parent.forkTree({ count: 2 });
  const winner = children[1];
  const promoted = await winner.promote({ cleanupSiblings: true });
  const alive = (await client.sandboxes.list()).map((each) => each.id);
  const told = {
    parent: parent.id,
    children: children.map(seen.sandbox),
    others: others.map((each) => each.id),
    promoted,
    alone: await others[0].promote(),
    alive,
    not_of_a_tree: await seen.error(() => parent.promote({ cleanupSiblings: true })),
    harmless: await parent.promote(),
    too_many: await seen.error(() => parent.forkTree({ count: 17 })),
  };
  for (const each of [winner, ...others, parent]) await each.kill();
  return told;
}

// The client's own choreography of fork-tree, exec, promote and delete.
export async function explore(_sdk, client) {
  const parent = await client.sandboxes.create({ template: "base", ttlSeconds: 200 });
  const limits = [];
  const candidates = [
    { label: "good", cmd: "echo PASS; echo result > /root/result" },
    { label: "better", cmd: "echo PASS; echo PASS; echo more > /root/better" },
    { label: "bad", cmd: "exit 1" },
    { label: "slow", cmd: "sleep 60", timeoutS: 1 },
  ];
  const scoreFn = async (sandbox, outcome) => {
    limits.push((await sandbox.lifecycle()).ttl_seconds);
    return outcome.stdoutTail.split("PASS").length - 1;
  };
  const done = await parent.explore(candidates, { scoreFn, ttlSeconds: 77 });
  const own = ({ info }) => info.metadata.fork_parent_id === parent.id;
  const living = async () => (await client.sandboxes.list()).filter(own).map((each) => each.id);
  const alive = await living();
  const by = (field) => Object.fromEntries(done.outcomes.map((each) => [each.label, each[field]]));
  const told = {
    winner: done.winnerOutcome.label,
    alive: alive.includes(done.winner.id),
    left: done.outcomes.map((each) => each.sandboxId).filter((id) => alive.includes(id)),
    winner_id: done.winner.id,
    limits,
    ttl_after: (await done.winner.lifecycle()).ttl_seconds,
    reaped: done.reaped.length,
    failures: done.reapFailures,
    errors: done.errors,
    tree: done.treeId,
    timed_out: by("timedOut"),
    files: by("filesChanged"),
  };
  await done.winner.kill();
  told.hopeless = await seen.error(() => parent.explore(["exit 1", "exit 2"]));
  told.alive_at_the_end = await living();
  await parent.kill();
  return told;
}

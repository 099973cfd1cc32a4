// Who am I, tokens, templates.

import * as seen from "./seen.mjs";

export async function tokens(sdk, client) {
  const made = await client.tokens.create("conformance");
  const own = new sdk.Client({ apiKey: made.token });
  const told = {
    me: await client.me(),
    made,
    works: (await own.me()).workspace,
    listed: await client.tokens.list(),
  };
  await client.tokens.revoke(made.prefix);
  return {
    ...told,
    after: await seen.error(() => own.me()),
    revoked_twice: await seen.error(() => client.tokens.revoke(made.prefix)),
  };
}

export async function templates(_sdk, client) {
  return {
    listed: await client.templates.list(),
    got: await client.templates.get("base"),
    alias: (await client.templates.get("ubuntu-24.04")).name,
    missing: await seen.error(() => client.templates.get("no-such-template")),
  };
}

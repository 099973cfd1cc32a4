"""Who am I, tokens, templates."""

from __future__ import annotations

from dataclasses import asdict

import seen

from pandastack import Client


def tokens(client) -> dict[str, object]:
    made = client.tokens.create("conformance", expires_in_days=3)
    own = Client(api_url=client.api_url, api_key=made.token)
    told = {
        "me": client.me(),
        "made": asdict(made),
        "works": own.me()["workspace"],
        "listed": [asdict(each) for each in client.tokens.list()],
    }
    client.tokens.revoke(made.prefix)
    return told | {
        "after": seen.error(own.me),
        "revoked_twice": seen.error(lambda: client.tokens.revoke(made.prefix)),
    }


def templates(client) -> dict[str, object]:
    return {
        "listed": [asdict(each) for each in client.templates.list()],
        "got": asdict(client.templates.get("base")),
        "alias": client.templates.get("ubuntu-24.04").name,
        "missing": seen.error(lambda: client.templates.get("no-such-template")),
    }

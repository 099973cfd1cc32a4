"""The token that a new server makes for the user who started it, and where that user's clients find it."""

from __future__ import annotations

import json
from pathlib import Path

from pandastack import config
from pandastack.cli.output import note
from pandastack.errors import PandastackError
from pandastack.host.files import write_atomically

CLIENT_FILE = "client.json"


def keep(data: Path, url: str, token: str) -> None:
    """Write a server's first token to its data directory (mode 0600): the store itself has only a hash of it."""
    write_atomically(data / CLIENT_FILE, json.dumps({"api_url": url, "token": token}).encode())


def first_token(data: Path) -> str | None:
    """The token that was written when the server was new."""
    try:
        return str(json.loads((data / CLIENT_FILE).read_bytes())["token"])
    except (OSError, ValueError, KeyError):
        return None


def publish(data: Path, url: str) -> None:
    """Make the server at ``url`` the default of this user's clients.

    A configuration that names another server stays as it is: two servers on one host must not take each other's
    clients.
    """
    token = first_token(data)
    if token is None:
        return  # the token was given to another user
    keep(data, url, token)
    try:
        known = config.read_config()
        if known.get("api_url") in (None, url) or known.get("token") == token:
            config.save_config(url, token)
            return
        note(f"{config.config_file()} names another server, {known['api_url']}, and is left unchanged")
    except PandastackError as error:
        note(str(error))
    note(f"to use this one, set PANDASTACK_API={url} and PANDASTACK_API_KEY to the token in {data / CLIENT_FILE}")

"""Other workspaces of a running server: so far nothing but the database can make one."""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing

from pandastack import Client
from tests.support.installation import Server


def tenant(server: Server, workspace: str) -> Client:
    """A client of ``workspace``, which is made if it is not there yet. It can be asked for again after a restart."""
    token = "pds_" + hashlib.md5(workspace.encode()).hexdigest()
    digest = hashlib.sha256(token.encode()).hexdigest()
    with closing(sqlite3.connect(server.installation.data / "pandastack.db", timeout=30)) as connection, connection:
        connection.execute("INSERT OR IGNORE INTO workspaces (id, created_at) VALUES (?, 1.0)", (workspace,))
        connection.execute(
            "INSERT OR IGNORE INTO api_tokens VALUES (?, ?, ?, '', 1.0, NULL)", (digest, workspace, token[:12])
        )
    return Client(server.url, token, timeout=120)

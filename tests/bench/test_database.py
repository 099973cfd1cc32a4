"""The bench of databases: what needs no machine."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from pandastack.bench import database
from pandastack.bench.database import Samples, check, query, rows
from pandastack.errors import PandastackError

ONE = {"id": "d", "host": "d.localhost", "port": 5432, "username": "u", "database": "b", "password": "p"}


class Api:
    """Answers with these databases, in order."""

    def __init__(self, *answers: dict[str, object]) -> None:
        self.answers = list(answers)

    def post(self, _path: str, _body: object = None) -> dict[str, object]:
        return self.answers.pop(0)

    def get(self, _path: str) -> dict[str, object]:
        return self.answers.pop(0)


def test_what_starts_a_machine_is_compared_with_the_floor() -> None:
    found = {row.name: row for row in rows(Samples([100.0], [300.0], [400.0], [90.0], [10.0], [500.0], [600.0]))}
    assert {name: row.ratio for name, row in found.items()} == {
        "floor": None,
        "database_running": 3.0,
        "database_first_query": 4.0,
        "database_query": None,
        "psql_start": None,
        "branch_running": 5.0,
        "branch_first_query": 6.0,
    }


def test_a_database_is_ready_with_its_address_only() -> None:
    making, half, done = {**ONE, "status": "provisioning"}, {**ONE, "status": "running"}, {**ONE, "status": "running"}
    done["connection_url"] = "postgres://"
    made: list[str] = []
    assert database.ready(Api(making, making, half, done), made, "/databases") == done  # type: ignore[arg-type]
    assert made == ["d"]
    with pytest.raises(PandastackError, match="no disk"):
        database.ready(Api(making, {**ONE, "status": "failed", "error": "no disk"}), [], "")  # type: ignore[arg-type]


@pytest.mark.parametrize(("script", "fails"), [("echo 42", False), ("echo 43", True), ("echo gone >&2; exit 2", True)])
def test_only_the_right_answer_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, fails: bool
) -> None:
    program = tmp_path / "psql"
    program.write_text(
        f'#!/bin/sh\ntest "$PGHOST/$PGPASSWORD/$PGSSLMODE" = d.localhost/p/require || exit 3\n{script}\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    check()
    if not fails:
        query(ONE)
        return
    with pytest.raises(PandastackError, match=r"psql got (no|another) answer"):
        query(ONE)


def test_without_psql_nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    with pytest.raises(PandastackError, match="psql"):
        check()

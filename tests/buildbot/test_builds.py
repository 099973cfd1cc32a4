"""Builds of a real Buildbot master, each in a machine of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pandastack import Client
from tests.support.buildbot import Master, Start
from tests.support.installation import eventually

SUCCESS, FAILURE, RETRY, CANCELLED = 0, 2, 5, 6
"""Results of builds, as in ``buildbot.process.results``."""

pytestmark = [pytest.mark.slow, pytest.mark.vm, pytest.mark.network]


@pytest.fixture(scope="module")
def master(start: Start) -> Iterator[Master]:
    with start() as master:
        yield master


def test_builds_pass_each_on_a_fresh_machine(master: Master, client: Client) -> None:
    for _ in range(2):
        done = master.build("passes")
        assert done["results"] == SUCCESS, done
        assert "prepared\n" in done["log"] and done["log"].count("No such file") == 2
    gone(client)


def test_a_build_fails(master: Master, client: Client) -> None:
    done = master.build("fails")
    assert done["results"] == FAILURE and "before\n" in done["log"]
    gone(client)


def test_much_output_arrives(master: Master) -> None:
    done = master.build("large")
    assert done["results"] == SUCCESS and done["log"].count("x" * 1000 + "\n") == 3000


def test_a_stopped_build_ends_its_machine(master: Master, client: Client) -> None:
    master.ask("build hangs")
    build = master.hear("new")
    master.hear("log")
    assert len(client.sandboxes.list()) == 1
    master.ask(f"stop {build['id']}")
    assert master.hear("finished")["results"] == CANCELLED
    gone(client)


def test_a_build_is_stopped_while_its_machine_is_made(master: Master, client: Client) -> None:
    master.ask("build passes")
    build = master.hear("new")
    master.ask(f"stop {build['id']}")
    assert master.hear("finished")["results"] == CANCELLED
    gone(client)
    assert master.build("passes")["results"] == SUCCESS


def test_a_master_that_was_killed_leaves_nothing_to_the_next(master: Master, start: Start, client: Client) -> None:
    master.ask("build hangs")
    master.hear("log")
    former = [each.id for each in client.sandboxes.list()]
    assert len(former) == 1
    master.process.kill()
    master.process.wait()
    with start() as successor:
        build = successor.hear("new")  # Buildbot has it done again
        successor.hear("log")
        again = [each.id for each in client.sandboxes.list()]
        assert len(again) == 1 and again != former
        successor.ask(f"stop {build['id']}")
        assert successor.hear("finished")["results"] == CANCELLED
    gone(client)


def test_a_machine_that_cannot_be_made_is_said(start: Start) -> None:
    with start() as master:
        done = master.build("nowhere")
    assert done["results"] == RETRY and "no-such-pool" in done["log"]


def gone(client: Client) -> None:
    eventually(lambda: not client.sandboxes.list(), 60, "no machine is left")

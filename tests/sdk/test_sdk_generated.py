"""The blocking flavour is generated from the waiting one, and both look like the official client."""

from __future__ import annotations

import importlib.util
import inspect
import json
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import pandastack
from pandastack import AsyncClient, AsyncSandbox, Candidate, Client, CodeContext, ExploreResult, Sandbox
from pandastack.sdk._sync.client import SandboxAPI, TemplatesAPI
from pandastack.sdk._sync.commands import SandboxCommands
from pandastack.sdk._sync.filesystem import SandboxFilesystem
from pandastack.sdk._sync.snapshots import SnapshotsAPI

ROOT = Path(__file__).resolve().parents[2]
OFFICIAL = json.loads((Path(__file__).parent / "data" / "official_signatures.json").read_text("utf-8"))
CLASSES = {
    "Client": Client,
    "Client.sandboxes": SandboxAPI,
    "Client.snapshots": SnapshotsAPI,
    "Client.templates": TemplatesAPI,
    "Sandbox": Sandbox,
    "CodeContext": CodeContext,
    "Sandbox.filesystem": SandboxFilesystem,
    "Sandbox.commands": SandboxCommands,
    "Candidate": Candidate,
    "ExploreResult": ExploreResult,
}
METHODS = [(owner, name) for owner, methods in OFFICIAL["methods"].items() for name in methods]


OWN = (
    "max_bytes",
    "on_expire",
    "checkpoint_every",
    "checkpoint_after_exec",
    "max_lifetime_seconds",
    "disk_gb",
    "on_memory_loss",
    "network",
    "idempotency_key",
    "status",
    "metadata",
)
"""Keyword-only arguments that the official client does not have: they take nothing from its callers."""


def plain(function: Any) -> str:
    """The signature without annotations, which are better than the official ones, and without arguments of our own."""
    signature = inspect.signature(function)
    bare = [
        each.replace(annotation=each.empty)
        for each in signature.parameters.values()
        if not (each.name in OWN and each.kind is each.KEYWORD_ONLY)
    ]
    return str(signature.replace(parameters=bare, return_annotation=signature.empty))


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_sync", ROOT / "scripts" / "generate_sync.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_blocking_client_is_up_to_date() -> None:
    module = generator()
    files = module.all_generated()
    assert len(files) >= 6
    assert module.outdated(files) == [], "run `python scripts/generate_sync.py`"


def test_a_rule_that_nothing_needs_is_found() -> None:
    rule = generator().Blocking()
    unused = set(rule.unused())
    assert rule.body("async def f(x: AsyncClient): return await async_pause(x.aread())") == (
        "def f(x: Client): return pause(x.read())"
    )
    assert unused - set(rule.unused()) == {"Async(?=[A-Z])", "async_(?=[a-z])", "aread"}


def test_the_blocking_client_waits_for_nothing() -> None:
    for path in (ROOT / "src" / "pandastack" / "sdk" / "_sync").glob("*.py"):
        code = path.read_text("utf-8").split("\n", 1)[1]
        assert "async" not in code.lower() and "await" not in code, path


@pytest.mark.parametrize(("owner", "name"), METHODS)
def test_signature_is_the_official_one(owner: str, name: str) -> None:
    assert plain(getattr(CLASSES[owner], name)) == OFFICIAL["methods"][owner][name]


@pytest.mark.parametrize("name", OFFICIAL["fields"])
def test_fields_are_the_official_ones(name: str) -> None:
    assert [each.name for each in fields(getattr(pandastack, name))] == OFFICIAL["fields"][name]


@pytest.mark.parametrize("name", OFFICIAL["functions"])
def test_function_is_the_official_one(name: str) -> None:
    assert plain(getattr(pandastack, name)) == OFFICIAL["functions"][name]


@pytest.mark.parametrize("name", OFFICIAL["errors"])
def test_error_is_exported(name: str) -> None:
    assert issubclass(getattr(pandastack, name), pandastack.PandastackError)


@pytest.mark.parametrize(("blocking", "waiting"), [(Sandbox, AsyncSandbox), (Client, AsyncClient)])
def test_both_flavours_have_the_same_public_names(blocking: type, waiting: type) -> None:
    assert {n for n in dir(blocking) if n[0] != "_"} == {n for n in dir(waiting) if n[0] != "_"}


def test_every_exported_name_resolves() -> None:
    assert all(getattr(pandastack, name) is not None for name in pandastack.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = pandastack.nothing

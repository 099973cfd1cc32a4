"""What the documentation says without running it is still held against the thing itself."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import TypeGuard

import pytest
import typer.main
from starlette.routing import BaseRoute, WebSocketRoute
from typer.core import TyperCommand, TyperGroup

from pandastack.api import create_app
from pandastack.api.app import ROUTERS
from pandastack.cli.app import build_app
from pandastack.cluster import Engines
from pandastack.services import Settings
from tests.docs.blocks import ROOT, RUNNABLE, SHOWN, blocks, pages

PAGES = pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))

_LINK = re.compile(r"\]\(([^)\s]+)\)")
_SPAN = re.compile(r"`([^`\n]+)`")
_COMMAND = re.compile(r"(?:^|\$\(|\| )(?:\.venv/bin/)?pandastack (.+?)\)?$")
_VARIABLE = re.compile(r"\bPANDASTACK_[A-Z_]+[A-Z]\b")
_ROUTE = re.compile(r"`(GET|POST|PUT|PATCH|DELETE) (…?/[^`?]*)[^`]*`")
_API_PAGE = ROOT / "docs/api.md"


@PAGES
def test_each_block_is_run_or_says_that_it_is_not_meant_to_be(page: Path) -> None:
    for block in blocks(page):
        assert block.runs if block.language in RUNNABLE else block.info in SHOWN, f"{block}: {block.info!r}"


@PAGES
def test_links_lead_somewhere(page: Path) -> None:
    for target in _LINK.findall(page.read_text()):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def anchors(page: Path) -> set[str]:
    """The names that a page's headings can be linked by."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@PAGES
def test_commands_and_their_options_exist(page: Path) -> None:
    for words in mentioned_commands(page):
        command, rest = resolve(words)
        if isinstance(command, TyperGroup):
            continue  # a page that names a noun only
        known = {"--help"}.union(*(parameter.opts for parameter in command.params))
        if command.name == "exec":  # what follows the sandbox's id belongs to the command inside
            rest = list(itertools.takewhile(lambda word: word.startswith("-"), rest))
        used = {word for word in rest if re.match(r"--?[a-z]", word)}
        assert used <= known, f"{words}: {sorted(used - known)}"


def mentioned_commands(page: Path) -> Iterator[list[str]]:
    """The words after ``pandastack`` of each command line on the page that is not run anyway."""
    lines = [line for block in blocks(page) if not block.runs for line in block.text.splitlines()]
    for text in [*_SPAN.findall(page.read_text()), *lines]:
        found = _COMMAND.search(text.partition("  #")[0].strip())
        if found:
            yield found[1].split()


@functools.cache
def commands() -> TyperCommand | TyperGroup:
    """The whole command line."""
    return typer.main.get_command(build_app())


def resolve(words: list[str]) -> tuple[TyperCommand | TyperGroup, list[str]]:
    """The command that ``words`` call and what is left of them. Raises AssertionError when there is none."""
    command, rest = commands(), list(words)
    while isinstance(command, TyperGroup) and rest and not rest[0].startswith(("-", "…")):
        chosen = command.commands.get(rest.pop(0))
        assert chosen is not None, f"pandastack has no command {' '.join(words)!r}"
        command = chosen
    assert isinstance(command, (TyperCommand, TyperGroup))
    return command, rest


def test_a_command_that_does_not_exist_is_noticed() -> None:
    with pytest.raises(AssertionError, match="no command"):
        resolve(["sandbox", "explode"])
    assert resolve(["sandbox", "list"])[0].name == "list"


@PAGES
def test_environment_variables_are_read_by_something(page: Path) -> None:
    assert set(_VARIABLE.findall(page.read_text())) - settings() - mentioned() == set()


@functools.cache
def mentioned() -> set[str]:
    """The variables that any module names."""
    return {name for path in (ROOT / "src").rglob("*.py") for name in _VARIABLE.findall(path.read_text())}


def settings() -> set[str]:
    """The variables that the control plane reads by the names of its settings."""
    return {f"PANDASTACK_{each.name.upper()}" for each in dataclasses.fields(Settings)}


def test_every_setting_is_on_its_page() -> None:
    assert settings() - set(_VARIABLE.findall((ROOT / "docs/server.md").read_text())) == set()


@functools.cache
def routes() -> set[tuple[str, str]]:
    """Method and path of every public route, with ``{}`` for what varies."""
    app = create_app(Engines({}), "")  # it is not opened, only asked what it has
    operations = {(method.upper(), path) for path, methods in app.openapi()["paths"].items() for method in methods}
    operations |= {("GET", each.path) for router in ROUTERS for each in router.routes if _is_websocket(each)}
    return {(method, re.sub(r"{\w+(?::path)?}", "{}", path)) for method, path in operations}


def _is_websocket(route: BaseRoute) -> TypeGuard[WebSocketRoute]:
    return isinstance(route, WebSocketRoute)


def mentioned_routes(page: Path) -> set[tuple[str, str]]:
    """The same of what a page mentions; ``…/`` stands for the beginning of a path."""
    return {(method, re.sub(r"{\w+}", "{}", path)) for method, path in _ROUTE.findall(page.read_text())}


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_routes_exist(page: Path) -> None:
    known = routes() | {("GET", "/openapi.json"), ("GET", "/docs")}
    for method, path in mentioned_routes(page):
        assert any(
            method == each and (route == path or (path[0] == "…" and route.endswith(path[1:]))) for each, route in known
        ), f"{method} {path}"


def test_every_route_is_on_its_page() -> None:
    assert routes() - mentioned_routes(_API_PAGE) == set()


def test_every_event_is_on_its_page() -> None:
    sources = [path.read_text() for path in (ROOT / "src/pandastack/services").rglob("*.py")]
    types = {type for source in sources for type in re.findall(r'NewEvent\(\s*"([\w.]+)"', source)}
    assert "sandbox.running" in types
    assert types - set(_SPAN.findall(_API_PAGE.read_text())) == set()


@PAGES
def test_make_targets_and_extras_exist(page: Path) -> None:
    text = page.read_text()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for extra in re.findall(r"(?:pandastack|\.)\[(\w+)\]", text):
        assert extra in extras
    for target in re.findall(r"`make (\w+)`|^make (\w+)", text, re.MULTILINE):
        done = subprocess.run(["make", "--dry-run", "".join(target)], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


PACKAGES = sorted(path.name for path in (ROOT / "src/pandastack").iterdir() if path.is_dir())


@PAGES
def test_files_that_are_named_exist(page: Path) -> None:
    """Files and folders of the source tree, by their paths from its root or from the package's own."""
    at_root = re.compile(r"(?:src|tests|scripts|examples|templates|guest-agent|docs)/[\w./-]+")
    below_package = re.compile(rf"(?:{'|'.join(PACKAGES)})/[\w./-]*\.\w+")
    for name in _SPAN.findall(page.read_text()):
        if at_root.fullmatch(name):
            assert (ROOT / name).exists(), name
        elif below_package.fullmatch(name):
            assert (ROOT / "src/pandastack" / name).exists(), name


def test_the_lives_name_many_files() -> None:
    """So that the test above has something to look at."""
    names = _SPAN.findall((ROOT / "ARCHITECTURE.md").read_text())
    assert len([name for name in names if name.endswith(".py")]) > 30

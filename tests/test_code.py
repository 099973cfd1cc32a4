"""The code as a whole: layers, types, style, size."""

from __future__ import annotations

import ast
import importlib
import statistics
import subprocess
import sys
from contextlib import suppress
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = [path for path in (ROOT / "src").rglob("*.py") if "_sync" not in path.parts]
CHECKED = ("src", "tests", "scripts", "examples")


def tool(*argv: str) -> None:
    """Run a tool of the virtual environment; what it finds is the test's failure."""
    done = subprocess.run(
        [Path(sys.executable).with_name(argv[0]), *argv[1:]], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_package_imports_only_from_layers_below() -> None:
    tool("lint-imports", "--no-cache")


@pytest.mark.timeout(300)  # in a checkout that has never been checked
def test_types() -> None:
    tool("mypy")


def test_style() -> None:
    tool("ruff", "check", *CHECKED)


def test_formatting() -> None:
    tool("ruff", "format", "--check", *CHECKED)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT / "src")))
def test_modules_are_small_and_say_what_they_are(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    assert not text or text.startswith(('"""', "from __future__"))
    assert path.stem not in ("utils", "util", "common", "helpers", "misc")


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


LONGEST = 65
LONGER = {"open_control_plane": 120}
"""Functions that may be longer than the longest: one that only puts parts together, in order."""


@cache
def functions() -> list[tuple[Path, ast.FunctionDef | ast.AsyncFunctionDef]]:
    return [
        (path, node)
        for path in SOURCES
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (function.end_lineno or 0) - function.lineno + 1


def test_functions_are_short() -> None:
    long = [each.name for _, each in functions() if lines(each) > LONGER.get(each.name, LONGEST)]
    assert long == []
    nine_of_ten = statistics.quantiles((lines(each) for _, each in functions()), n=10)[-1]
    assert nine_of_ten <= 17


def test_functions_take_few_parameters() -> None:
    """But for those whose parameters are the options of a call: the client's and the command line's."""
    options = {ROOT / "src/pandastack/sdk", ROOT / "src/pandastack/cli"}
    many = []
    for path, function in functions():
        given = function.args
        count = len([*given.posonlyargs, *given.args, *given.kwonlyargs])
        if count > 10 and not options & set(path.parents):
            many.append(f"{path.relative_to(ROOT)}: {function.name} takes {count}")
    assert many == []


def test_tests_import_helpers_that_exist_and_never_another_test() -> None:
    """What two test modules need stands in ``tests/support``; fixtures need no import at all."""
    wrong = []
    for path in (ROOT / "tests").rglob("*.py"):
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "tests":
                wrong += [f"{path.relative_to(ROOT)}: {each}" for each in _wrong_imports(str(node.module), node.names)]
    assert wrong == []


def _wrong_imports(module: str, names: list[ast.alias]) -> list[str]:
    """What an import gets wrong. Names that are no attributes of the module must be modules of their own."""
    found = importlib.import_module(module)
    modules = [module, *(f"{module}.{each.name}" for each in names if not hasattr(found, each.name))]
    wrong = [name for name in modules if name.split(".")[-1].startswith(("test_", "conftest"))]
    for name in modules:
        with suppress(ModuleNotFoundError):
            importlib.import_module(name)
            continue
        wrong.append(name)
    return wrong


def imports() -> dict[str, set[str]]:
    """The modules that each module imports, for types only or inside functions too."""
    paths = [*SOURCES, *(ROOT / "src/pandastack/sdk/_sync").glob("*.py")]
    names = {".".join(path.relative_to(ROOT / "src").with_suffix("").parts): path for path in paths}
    modules = {name.removesuffix(".__init__"): parsed(path) for name, path in names.items()}
    found: dict[str, set[str]] = {}
    for name, tree in modules.items():
        statements = [each for each in ast.walk(tree) if isinstance(each, ast.ImportFrom) and each.module]
        wanted = {(each.module or "", alias.name) for each in statements for alias in each.names}
        named = {f"{module}.{what}" if f"{module}.{what}" in modules else module for module, what in wanted}
        found[name] = {each for each in named if each in modules} - {name}
    return found


def test_no_modules_import_each_other_in_a_circle() -> None:
    found = imports()
    assert "pandastack.sdk._async.interfaces" in found["pandastack.sdk._async.filesystem"]
    list(TopologicalSorter(found).static_order())  # raises CycleError, which names the circle


def test_no_machine_of_a_developer_is_named() -> None:
    """Files that are shipped or read by others hold no paths of the place where they were written."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("this is no git checkout")
    words = [f"{ROOT}/", "/" + "work/", "/" + "Users/"]
    found = [
        f"{name}: {word}"
        for name in listed.stdout.split("\0")
        if name and (ROOT / name).is_file() and name != "tests/test_code.py"
        for word in words
        if word.encode() in (ROOT / name).read_bytes()
    ]
    assert found == []

"""The protocol's names are the same on both sides, and Python writes no bare numbers."""

from __future__ import annotations

import ast
import re
from enum import IntEnum, IntFlag
from pathlib import Path

import pytest

from pandastack.guest import frames, keys

ROOT = Path(__file__).resolve().parents[2]
PROTO = (ROOT / "guest-agent/src/proto.h").read_text()

NAMED: dict[str, tuple[type[IntEnum] | type[IntFlag], str]] = {
    "frame_type": (keys.FrameType, "F_"),
    "hello_key": (keys.HelloKey, "HELLO_"),
    "resume_key": (keys.ResumeKey, "RESUME_"),
    "resumed_key": (keys.ResumedKey, "RESUMED_"),
    "opened_key": (keys.OpenedKey, "OPENED_"),
    "open_key": (keys.OpenKey, "OPEN_"),
    "open_flag": (keys.OpenFlag, "FLAG_"),
    "result_key": (keys.ResultKey, "RESULT_"),
    "record_key": (keys.RecordKey, "RECORD_"),
    "record_flag": (keys.RecordFlag, "STATE_"),
    "signal_value": (keys.Signal, "SIGNAL_"),
    "entry_key": (keys.EntryKey, "ENTRY_"),
}


def enums(text: str) -> dict[str, dict[str, int]]:
    """Every enum of a header whose values are literals or products of literals; the one without a name is ``""``."""
    plain = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    found: dict[str, dict[str, int]] = {}
    for name, body in re.findall(r"enum\s*(\w*)\s*\{(.*?)\}", plain, flags=re.S):
        values = dict(item.split("=") for item in re.split(r",\s*", body.strip().rstrip(",")))
        found[name] = {key.strip(): product(value) for key, value in values.items()}
    return found


def product(text: str) -> int:
    value = 1
    for factor in text.split("*"):
        value *= int(factor)
    return value


def test_the_header_has_the_enums_that_python_has_and_no_others() -> None:
    assert enums(PROTO).keys() - {""} == NAMED.keys()
    classes = {kind for kind, _ in NAMED.values()}
    assert {each for each in vars(keys).values() if isinstance(each, type) and issubclass(each, IntEnum | IntFlag)} == (
        classes | {IntEnum, IntFlag}
    )


@pytest.mark.parametrize("name", NAMED)
def test_every_key_has_one_name_and_number_on_both_sides(name: str) -> None:
    kind, prefix = NAMED[name]
    theirs = enums(PROTO)[name]
    assert all(key.startswith(prefix) for key in theirs)
    assert {key.removeprefix(prefix): value for key, value in theirs.items()} == {
        each.name: each.value for each in kind
    }


def test_sizes_and_version_are_the_same() -> None:
    assert enums(PROTO)[""] == {
        "PROTO_VERSION": keys.VERSION,
        "HEADER_SIZE": frames.HEADER_SIZE,
        "PAYLOAD_MAX": frames.PAYLOAD_MAX,
        "WINDOW": frames.WINDOW,
        "NONCE_SIZE": frames.NONCE_SIZE,
        "FRAME_WHOLE": frames.FRAME_WHOLE,
    }


def test_operations_are_the_same() -> None:
    theirs = dict(re.findall(r'#define OP_(\w+) "(\w+)"', PROTO))
    assert theirs == {each.name: each.value for each in keys.Operation}


@pytest.mark.parametrize("path", sorted((ROOT / "src/pandastack/guest").glob("*.py")), ids=lambda path: path.stem)
def test_no_key_is_written_as_a_number(path: Path) -> None:
    """Neither where a field is read (``integer(fields, 3)``, ``3 in fields``) nor where one is made (``(3, b"…")``)."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("integer", "text", "_one"):
            keyed = node.args[1:2]
        elif isinstance(node, ast.Compare) and ast.unparse(node.comparators[0]) == "fields":
            keyed = [node.left]
        elif isinstance(node, ast.Tuple) and len(node.elts) == 2 and isinstance(node.ctx, ast.Load):
            keyed = [node.elts[0]] if not isinstance(node.elts[1], ast.Constant | ast.BinOp) else []
        else:
            continue
        assert not any(isinstance(each, ast.Constant) and isinstance(each.value, int) for each in keyed), (
            f"{path.name}:{node.lineno}: {ast.unparse(node)}"
        )

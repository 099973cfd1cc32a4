"""The codec, for every message there is: what goes in comes out, and nothing else comes in."""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pandastack import contract
from pandastack.contract.codec import check_request, decode_answer, decode_request, encode
from pandastack.contract.failures import Failure
from pandastack.contract.fields import Uuid
from pandastack.contract.processes import ExecSpec
from pandastack.contract.references import Point, SandboxRef, SnapshotRef, TemplateRef
from pandastack.contract.sandboxes import CreateSandbox, ForkSandbox, SandboxSpec
from pandastack.errors import BadRequestError, CapacityError, NotFoundError, PandastackError, ServerError
from tests.contract.messages import MESSAGES, hints_of, values

every_message = pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
a_few = settings(deadline=None, max_examples=5)

ID = "00000000-0000-4000-8000-000000000000"

NEVER: dict[Any, list[Any]] = {
    str: [1, True, [], {}],
    int: ["1", True, 1.5, 1e3, 1 << 64, -(1 << 63) - 1, [], {}],
    float: ["1", True, 1 << 64, [], {}],
    bool: [0, 1, "true", [], {}],
    bytes: ["no base64!", "é", 7, [], {}],
    tuple: [{}, "x", 1, [[[]]]],
    Mapping: [[], "x", 1],
}
"""JSON that is no value of a type."""


def plain(message: object) -> dict[str, Any]:
    """The JSON of a message."""
    parsed: dict[str, Any] = json.loads(encode(message))
    return parsed


def wrong(hint: Any) -> list[Any]:
    """JSON that a field of this type must refuse."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return wrong(arguments[0])
    if origin in (Union, UnionType):
        options = [each for each in arguments if each is not type(None)]
        refused = wrong(options[0]) if len(options) == 1 else [{}, {"kind": "unheard of"}, "x", 1]
        return [each for each in refused if each is not None] if type(None) in arguments else [*refused, None]
    if hint is Any:
        return []
    return [*NEVER.get(origin or hint, ["unheard of", 1, []]), None]


@every_message
def test_messages_are_frozen_and_have_slots(kind: Any) -> None:
    assert kind.__dataclass_params__.frozen
    assert "__dict__" not in dir(kind)


@every_message
@given(data=st.data())
def test_what_is_encoded_is_decoded(kind: type, data: st.DataObject) -> None:
    message = data.draw(values(kind))
    assert decode_request(kind, encode(message)) == message
    assert decode_answer(kind, encode(message).decode()) == message


@every_message
@a_few
@given(data=st.data())
def test_unknown_fields_are_refused_by_name(kind: type, data: st.DataObject) -> None:
    sent = json.dumps({**plain(data.draw(values(kind))), "unheard_of": 1})
    with pytest.raises(BadRequestError, match="unheard_of: is unknown") as refused:
        decode_request(kind, sent.encode())
    assert refused.value.field == "unheard_of"
    with pytest.raises(ServerError, match="the engine's answer is malformed: unheard_of: is unknown"):
        decode_answer(kind, sent)


@every_message
@a_few
@given(data=st.data())
def test_fields_are_needed_unless_they_have_a_default(kind: type, data: st.DataObject) -> None:
    whole = plain(data.draw(values(kind)))
    for each in fields(kind):
        sent = json.dumps({name: value for name, value in whole.items() if name != each.name}).encode()
        if each.default is MISSING and each.default_factory is MISSING:
            with pytest.raises(BadRequestError, match=f"{each.name}: is missing") as refused:
                decode_request(kind, sent)
            assert refused.value.field == each.name
        else:
            decode_request(kind, sent)


@every_message
@a_few
@given(data=st.data())
def test_wrong_types_are_refused_by_name(kind: type, data: st.DataObject) -> None:
    whole = plain(data.draw(values(kind)))
    for name, hint in hints_of(kind).items():
        for value in wrong(hint):
            with pytest.raises(BadRequestError, match=r"must|is unknown|is missing") as refused:
                decode_request(kind, json.dumps({**whole, name: value}).encode())
            assert refused.value.field is not None
            assert refused.value.field.startswith(name), (value, refused.value.message)


@every_message
@pytest.mark.parametrize("sent", ["null", "[]", "1", '"x"', "[[]]", "true"])
def test_a_message_is_an_object(kind: type, sent: str) -> None:
    with pytest.raises(BadRequestError, match="the message must be an object"):
        decode_request(kind, sent.encode())


@given(st.binary(max_size=100))
def test_anything_else_is_an_error_of_ours(sent: bytes) -> None:
    with pytest.raises(BadRequestError):
        decode_request(CreateSandbox, sent)
    with pytest.raises(ServerError):
        decode_answer(CreateSandbox, sent)


@pytest.mark.parametrize(
    "sent", [b"", b"{", b"\xff", b"[" * 100_000, b'{"cmd": NaN}', b'{"cmd": Infinity}', b"1" * 10_000]
)
def test_what_is_not_json_is_refused(sent: bytes) -> None:
    with pytest.raises(BadRequestError, match="not valid JSON"):
        decode_request(ExecSpec, sent)


def test_a_number_without_an_end_is_refused() -> None:
    with pytest.raises(BadRequestError, match="timeout_seconds: must be a number"):
        decode_request(ExecSpec, b'{"cmd": "true", "timeout_seconds": 1e999}')
    with pytest.raises(ValueError, match="JSON compliant"):
        encode(ExecSpec(cmd="true", timeout_seconds=float("inf")))


def test_the_whole_path_of_a_field_is_named() -> None:
    spec = {"id": ID, "env": {"A": 1}}
    with pytest.raises(BadRequestError, match=r"spec\.env\.A: must be a string") as refused:
        decode_request(CreateSandbox, json.dumps({"spec": spec, "start_from": {}}).encode())
    assert refused.value.field == "spec.env.A"
    children = [{"id": ID}, {"id": "../../etc"}]
    with pytest.raises(BadRequestError, match=r"children\[1\]\.id: must be a UUID"):
        decode_request(ForkSandbox, json.dumps({"children": children}).encode())


def test_a_long_name_is_not_repeated_whole() -> None:
    with pytest.raises(BadRequestError) as refused:
        decode_request(ExecSpec, json.dumps({"x" * 10_000: 1}).encode())
    assert len(refused.value.message) < 200


def test_kinds_tell_the_members_of_a_union_apart() -> None:
    for each in (TemplateRef("base"), SnapshotRef(ID), SandboxRef(ID)):
        assert decode_request(Point, encode(each)) == each
    with pytest.raises(BadRequestError, match="kind: must be one of template, snapshot, sandbox"):
        decode_request(Point, b'{"kind": "volume", "id": "x"}')
    with pytest.raises(BadRequestError, match=r"start_from\.kind: must be one of template, snapshot"):
        decode_request(CreateSandbox, encode(CreateSandbox(SandboxSpec(ID), SandboxRef(ID))))  # type: ignore[arg-type]
    with pytest.raises(BadRequestError, match="kind: must be template"):
        decode_request(TemplateRef, b'{"name": "base"}')


def test_children_have_different_ids() -> None:
    one = SandboxSpec(ID)
    for children in ((), (one, one)):
        with pytest.raises(BadRequestError, match="children: must be one or more, with different ids"):
            decode_request(ForkSandbox, encode(ForkSandbox(children)))


def test_arrays_of_messages_need_no_message_around_them() -> None:
    refs = (SnapshotRef(ID), SnapshotRef(ID))
    assert decode_answer(tuple[SnapshotRef, ...], encode(refs)) == refs


def test_a_value_by_itself() -> None:
    assert check_request(Uuid, ID, "id") == ID
    with pytest.raises(BadRequestError, match="id: must be a UUID") as refused:
        check_request(Uuid, "../x", "id")
    assert refused.value.field == "id"


@pytest.mark.parametrize(
    "error",
    [
        NotFoundError("no such child", hint="look again", field="id", detail={"errno": 2}),
        CapacityError("no room", status_code=507),
    ],
)
def test_a_failure_is_the_error_that_it_was(error: PandastackError) -> None:
    back = decode_answer(Failure, encode(Failure.of(error))).exception()
    assert type(back) is type(error)
    for name in ("message", "hint", "field", "status_code", "detail"):
        assert getattr(back, name) == getattr(error, name)


def test_only_what_is_a_message_is_encoded() -> None:
    for value in (object(), {1, 2}, Path("/")):
        with pytest.raises(TypeError, match="is not a message"):
            encode(value)


def test_the_contract_needs_nothing_but_the_standard_library() -> None:
    """Whoever speaks it, an engine in another language or a test, should need no more than this."""
    allowed = {"pandastack.errors", "pandastack.contract", "pandastack.model"}
    for path in sorted(Path(contract.__path__[0]).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                ours = ".".join(name.split(".")[:2]) in allowed
                assert ours or name.split(".")[0] in sys.stdlib_module_names, f"{path.name} imports {name}"

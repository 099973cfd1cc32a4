"""Converts messages to JSON and back.

A message is a frozen dataclass. Its type hints are its schema: ``str``, ``int``, ``float``, ``bool``, ``bytes`` (base64
on the wire), a :class:`~enum.StrEnum`, another message, ``X | None``, ``tuple[X, ...]``, ``Mapping[str, X]``, ``Any``
(any JSON), and ``Annotated[X, Constraint(...)]``. A message with a class variable ``KIND`` carries it as the field
``kind``, which tells the members of a union apart.

Decoding is strict: it refuses unknown fields, missing fields and wrong types. A missing field gets its default, if it
has one. The decoder of a class is built once, at its first use.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import StrEnum
from functools import cache
from operator import attrgetter
from types import NoneType, UnionType
from typing import Annotated, Any, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints, overload

from pandastack.errors import BadRequestError, ServerError

T = TypeVar("T")
Reader = Callable[[Any], Any]

_LEAST, _MOST = -(1 << 63), (1 << 64) - 1
_NAME_CHARACTERS = 64
"""How many characters of a foreign name an error repeats."""


@dataclass(frozen=True, slots=True)
class Constraint:
    """A condition on a value beyond its type: ``holds`` checks it, ``must`` completes the sentence "FIELD must …"."""

    holds: Callable[[Any], Any]
    must: str


class Malformed(ValueError):
    """A value does not match its type; ``where`` is the path of the field, empty for the whole message."""

    def __init__(self, problem: str, where: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.where = where

    def inside(self, name: str) -> Malformed:
        """The same error as seen from the object or array that contains the value under ``name``."""
        separator = "." if self.where and not self.where.startswith("[") else ""
        return Malformed(self.problem, name + separator + self.where)

    def __str__(self) -> str:
        return f"{self.where}: {self.problem}" if self.where else f"the message {self.problem}"


def encode(message: object) -> bytes:
    """A message, or a tuple of messages, as JSON."""
    return _encode(message).encode("ascii")


@overload
def decode_request(kind: type[T], data: bytes) -> T: ...
@overload
def decode_request(kind: object, data: bytes) -> Any: ...
def decode_request(kind: Any, data: bytes) -> Any:
    """Decode a request. Raises a :class:`BadRequestError` that names the field."""
    try:
        return _reader(kind)(_parsed(data))
    except Malformed as error:
        raise _refusal(error) from error


def check_request(kind: Any, value: object, field: str) -> Any:
    """The same for one value outside a body, such as a part of the path."""
    try:
        return _reader(kind)(value)
    except Malformed as error:
        raise _refusal(error.inside(field)) from error


@overload
def decode_answer(kind: type[T], data: bytes | str) -> T: ...
@overload
def decode_answer(kind: object, data: bytes | str) -> Any: ...
def decode_answer(kind: Any, data: bytes | str) -> Any:
    """Decode the engine's answer. Raises :class:`ServerError`: the two sides do not understand each other."""
    try:
        return _reader(kind)(_parsed(data))
    except Malformed as error:
        raise ServerError(f"the engine's answer is malformed: {error}") from error


def _refusal(error: Malformed) -> BadRequestError:
    return BadRequestError(str(error), field=error.where or None)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_json = json.JSONDecoder(parse_constant=_refuse_constant)


def _parsed(data: bytes | str) -> Any:
    try:
        return _json.decode(data if isinstance(data, str) else data.decode())
    except (ValueError, RecursionError) as error:
        raise Malformed("is not valid JSON") from error


def _plain(value: Any) -> Any:
    """Convert a value that the JSON encoder does not know into one that it does."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, Mapping):
        return dict(value)
    return _writer(value.__class__)(value)


_encode = json.JSONEncoder(allow_nan=False, separators=(",", ":"), default=_plain).encode


@cache
def _writer(kind: type) -> Callable[[Any], dict[str, Any]]:
    if not is_dataclass(kind):
        raise TypeError(f"{kind.__name__} is not a message")
    names = tuple(each.name for each in fields(kind))
    tag = {"kind": kind.KIND} if hasattr(kind, "KIND") else {}
    if len(names) < 2:  # an attrgetter with one name returns no tuple
        return lambda message: {**tag, **{name: getattr(message, name) for name in names}}
    values = attrgetter(*names)
    return lambda message: {**tag, **dict(zip(names, values(message), strict=True))}


@cache
def _reader(kind: Any) -> Reader:
    """The function that makes a value of type ``kind`` from parsed JSON."""
    if kind in _SCALARS:
        return _SCALARS[kind]
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _constrained(_reader(arguments[0]), arguments[1])
    if origin in (Union, UnionType):
        return _union(arguments)
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return _array(_reader(arguments[0]))
    if origin in (Mapping, dict) and arguments[0] is str:
        return _mapping(_reader(arguments[1]))
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return _member(kind)
    if is_dataclass(kind) and isinstance(kind, type):
        return _message(kind)
    raise TypeError(f"no message can hold {kind}")


def _text(value: Any) -> str:
    if type(value) is not str:
        raise Malformed("must be a string")
    return value


def _whole(value: Any) -> int:
    if type(value) is not int or not _LEAST <= value <= _MOST:
        raise Malformed("must be a whole number")
    return value


def _number(value: Any) -> float:
    if type(value) is float and math.isfinite(value):
        return value
    if type(value) is int and _LEAST <= value <= _MOST:
        return float(value)
    raise Malformed("must be a number")


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        raise Malformed("must be true or false")
    return value


def _bytes(value: Any) -> bytes:
    try:
        return base64.b64decode(_text(value), validate=True)
    except (Malformed, binascii.Error, ValueError):
        raise Malformed("must be base64") from None


_SCALARS: Mapping[Any, Reader] = {
    str: _text,
    int: _whole,
    float: _number,
    bool: _flag,
    bytes: _bytes,
    Any: lambda value: value,
}


def _constrained(read: Reader, constraint: Constraint) -> Reader:
    def read_constrained(value: Any) -> Any:
        found = read(value)
        if not constraint.holds(found):
            raise Malformed(f"must {constraint.must}")
        return found

    return read_constrained


def _member(kind: type[StrEnum]) -> Reader:
    members = {each.value: each for each in kind}

    def read_member(value: Any) -> StrEnum:
        if type(value) is not str or value not in members:
            raise Malformed(f"must be one of {', '.join(members)}")
        return members[value]

    return read_member


def _array(read: Reader) -> Reader:
    def read_array(value: Any) -> tuple[Any, ...]:
        if type(value) is not list:
            raise Malformed("must be an array")
        found: list[Any] = []
        try:
            for each in value:
                found.append(read(each))
        except Malformed as error:
            raise error.inside(f"[{len(found)}]") from None
        return tuple(found)

    return read_array


def _mapping(read: Reader) -> Reader:
    def read_mapping(value: Any) -> dict[str, Any]:
        if type(value) is not dict:
            raise Malformed("must be an object")
        found: dict[str, Any] = {}
        for name, each in value.items():
            try:
                found[name] = read(each)
            except Malformed as error:
                raise error.inside(name[:_NAME_CHARACTERS]) from None
        return found

    return read_mapping


def _union(kinds: tuple[Any, ...]) -> Reader:
    """``X | None``, or a union of messages that their ``kind`` tells apart."""
    others = tuple(each for each in kinds if each is not NoneType)
    read = _reader(others[0]) if len(others) == 1 else _tagged(others)
    if len(others) == len(kinds):
        return read
    return lambda value: None if value is None else read(value)


def _tagged(kinds: tuple[Any, ...]) -> Reader:
    readers = {each.KIND: _reader(each) for each in kinds}

    def read_tagged(value: Any) -> Any:
        tag = value.get("kind") if type(value) is dict else None
        if type(tag) is not str or tag not in readers:
            raise Malformed(f"must be one of {', '.join(readers)}", "kind")
        return readers[tag](value)

    return read_tagged


def _message(kind: type) -> Reader:
    hints = get_type_hints(kind, include_extras=True)
    plan = [
        (each.name, _reader(hints[each.name]), each.default is MISSING and each.default_factory is MISSING)
        for each in fields(kind)
    ]
    tag = {"kind": kind.KIND} if hasattr(kind, "KIND") else {}
    known = frozenset([*tag, *(name for name, _, _ in plan)])

    def read_message(value: Any) -> Any:
        if type(value) is not dict:
            raise Malformed("must be an object")
        if not known.issuperset(value):
            raise Malformed("is unknown", min(value.keys() - known)[:_NAME_CHARACTERS])
        if tag and value.get("kind") != tag["kind"]:
            raise Malformed(f"must be {tag['kind']}", "kind")
        found: dict[str, Any] = {}
        for name, read, required in plan:
            if name in value:
                try:
                    found[name] = read(value[name])
                except Malformed as error:
                    raise error.inside(name) from None
            elif required:
                raise Malformed("is missing", name)
        return kind(**found)

    return read_message

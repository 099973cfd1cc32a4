"""Every message of the contract, and strategies that make any value of one out of its type hints."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import StrEnum
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from hypothesis import strategies as st

from pandastack import contract
from pandastack.contract.codec import Constraint
from pandastack.contract.fields import Cells, Count, NonEmpty, Policy, Seconds, SignalNumber, Uuid
from pandastack.contract.network import Port
from pandastack.contract.snapshots import Sought
from pandastack.contract.volumes import SIZE_MAXIMUM_MB, MountPath, SizeMb
from pandastack.model.network import Egress, Limits, NetworkPolicy, Protocol, Rule


def _messages() -> list[type]:
    modules = [
        importlib.import_module(each.name) for each in pkgutil.iter_modules(contract.__path__, "pandastack.contract.")
    ]
    found = {
        each
        for module in modules
        for each in vars(module).values()
        if isinstance(each, type) and is_dataclass(each) and each.__module__.startswith("pandastack.contract.")
    }
    return sorted(found - {Constraint}, key=lambda each: each.__name__)


MESSAGES = _messages()

_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 63) - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)

_RULES = st.builds(
    Rule,
    st.sampled_from(["example.org", "*.example.org", "203.0.113.0/24", "198.51.100.7/32"]),
    st.none() | st.integers(1, 65535),
    st.none() | st.just(Protocol.TCP),
)
_LISTS = st.lists(_RULES, max_size=3, unique=True).map(tuple)
_LIMITS = st.builds(Limits, *[st.integers(0, 1_000_000)] * 3)

_VALUES: dict[Any, st.SearchStrategy[Any]] = {
    str: st.text(),
    int: st.integers(-(1 << 63), (1 << 64) - 1),
    float: st.floats(allow_nan=False, allow_infinity=False),
    bool: st.booleans(),
    bytes: st.binary(),
    NoneType: st.none(),
    Any: _JSON,
    Uuid: st.uuids().map(str),
    NonEmpty: st.text(min_size=1),
    Count: st.integers(0, (1 << 63) - 1),
    Seconds: st.floats(min_value=0, exclude_min=True, allow_infinity=False),
    Sought: st.binary(min_size=8, max_size=32).filter(lambda value: not {0, 10} & set(value)),
    Cells: st.integers(1, 65535),
    SignalNumber: st.integers(1, 64),
    Port: st.integers(1, 65535),
    MountPath: st.from_regex(r"(/[a-z]{1,9}){1,5}", fullmatch=True),
    SizeMb: st.integers(1, SIZE_MAXIMUM_MB),
    Policy: st.builds(NetworkPolicy, st.sampled_from([Egress.DENY, Egress.NONE, Egress.ALLOW]), limits=_LIMITS)
    | st.builds(NetworkPolicy, st.just(Egress.LIST), _LISTS, _LISTS, limits=_LIMITS),
}


@cache
def hints_of(message: type) -> dict[str, Any]:
    """The types of its fields."""
    hints = get_type_hints(message, include_extras=True)
    return {each.name: hints[each.name] for each in fields(message)}


@cache
def values(kind: Any) -> st.SearchStrategy[Any]:
    """Any value of a field's type, or any message of a class."""
    if kind in _VALUES:
        return _VALUES[kind]
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return values(arguments[0]).filter(arguments[1].holds)
    if origin in (Union, UnionType):
        return st.one_of(*map(values, arguments))
    if origin is tuple:
        return st.lists(values(arguments[0]), max_size=3).map(tuple)
    if origin is Mapping:
        return st.dictionaries(st.text(), values(arguments[1]), max_size=3)
    if issubclass(kind, StrEnum):
        return st.sampled_from(list(kind))
    return st.builds(kind, **{name: values(hint) for name, hint in hints_of(kind).items()})

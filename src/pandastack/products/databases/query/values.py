"""Values of PostgreSQL as JSON, and JSON as parameters. Pure, and linear in the length of what it reads.

Answers are as PostgreSQL's ``to_json`` has them, but for what JSON's readers lose: whole numbers beyond 2^53,
``numeric`` and floats that are no numbers are text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from json.encoder import encode_basestring
from typing import Any

from pydantic_core import from_json, to_json

from pandastack.errors import BadRequestError
from pandastack.products.databases.query.messages import Column, malformed, values_of

MOST_PARAMETERS = 10_000
_quoted: Callable[[str], str] = encode_basestring
_SAFE = 2**53 - 1
_WHOLE = re.compile(r"-?[0-9]{1,20}")
_FLOAT = re.compile(r"-?[0-9]{1,40}(\.[0-9]{1,400})?(e[+-]?[0-9]{1,5})?")
_STAMP = re.compile(r"(\d{4,6}-\d\d-\d\d) (\d\d:\d\d:\d\d(?:\.\d{1,6})?)([+-]\d\d(?::\d\d){0,2})?")
_MOST_DEPTH = 6  # of arrays, as in PostgreSQL

NAMES: Mapping[int, str] = {
    16: "bool", 17: "bytea", 18: "char", 19: "name", 20: "int8", 21: "int2", 23: "int4", 24: "regproc", 25: "text",
    26: "oid", 27: "tid", 28: "xid", 29: "cid", 114: "json", 142: "xml", 600: "point", 601: "lseg", 602: "path",
    603: "box", 604: "polygon", 628: "line", 650: "cidr", 700: "float4", 701: "float8", 705: "unknown",
    718: "circle", 774: "macaddr8", 790: "money", 829: "macaddr", 869: "inet", 1042: "bpchar", 1043: "varchar",
    1082: "date", 1083: "time", 1114: "timestamp", 1184: "timestamptz", 1186: "interval", 1266: "timetz",
    1560: "bit", 1562: "varbit", 1700: "numeric", 2205: "regclass", 2206: "regtype", 2249: "record", 2278: "void",
    2950: "uuid", 3220: "pg_lsn", 3614: "tsvector", 3615: "tsquery", 3802: "jsonb", 3904: "int4range",
    3906: "numrange", 3908: "tsrange", 3910: "tstzrange", 3912: "daterange", 3926: "int8range", 4072: "jsonpath",
}  # fmt: skip
"""The types of PostgreSQL itself, whose numbers are the same in every server."""

ELEMENTS: Mapping[int, int] = {
    1000: 16, 1001: 17, 1002: 18, 1003: 19, 1016: 20, 1005: 21, 1007: 23, 1009: 25, 1028: 26, 199: 114, 651: 650,
    1021: 700, 1022: 701, 1041: 869, 1014: 1042, 1015: 1043, 1182: 1082, 1183: 1083, 1115: 1114, 1185: 1184,
    1187: 1186, 1231: 1700, 2951: 2950, 3807: 3802, 1270: 1266, 1040: 829,
}  # fmt: skip
"""Their arrays, and of what."""

_JSON = (114, 3802)


def answer(columns: Sequence[Column], rows: Iterable[bytes], names: Mapping[int, str]) -> bytes:
    """The fields ``columns`` and ``rows`` of an answer, as JSON without its braces. ``names``: of the types that are
    not PostgreSQL's own. Raises :class:`GuestError` for rows that are none."""
    described = [{"name": each.name, "type": name_of(each.type, names)} for each in columns]
    writers = [_writer(each.type) for each in columns]
    width = len(columns)
    lines = (
        "[" + ",".join("null" if text is None else write(text) for text, write in zip(row, writers, strict=True)) + "]"
        for row in (values_of(body, width) for body in rows)
    )
    return b'"columns":' + to_json(described) + b',"rows":[' + ",".join(lines).encode(errors="replace") + b"]"


def name_of(number: int, names: Mapping[int, str]) -> str:
    """The name of a type."""
    if number in ELEMENTS:
        return f"{NAMES[ELEMENTS[number]]}[]"
    return NAMES.get(number) or names.get(number) or f"oid {number}"


def is_foreign(number: int) -> bool:
    """Whether only the server can say what a type is called."""
    return number not in NAMES and number not in ELEMENTS


def parameter(value: Any, number: int) -> bytes | None:
    """A value of JSON as the text of a parameter of this type; None is NULL."""
    if value is None:
        return None
    if number in _JSON and not isinstance(value, str):
        return to_json(value)
    return _text(value, _is_array(number)).encode()


def check_parameters(values: Sequence[Any]) -> None:
    """Refuse what no parameter can be. Raises :class:`BadRequestError`."""
    if len(values) > MOST_PARAMETERS:
        raise BadRequestError(f"params: at most {MOST_PARAMETERS}", field="params")
    for place, each in enumerate(values):
        if isinstance(each, str) and not is_text(each):
            field = f"params.{place}"
            raise BadRequestError(f"{field}: must be text without NUL characters", field=field)


def is_text(value: str) -> bool:
    """Whether PostgreSQL can have it: UTF-8, without NUL."""
    try:
        return "\0" not in value and (value.isascii() or bool(value.encode()))
    except UnicodeEncodeError:
        return False


def _is_array(number: int) -> bool:
    return number in ELEMENTS


def _text(value: Any, is_array: bool) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    if isinstance(value, int | float):
        return repr(value)
    if is_array and isinstance(value, list):
        return "{" + ",".join(map(_element, value)) + "}"
    return to_json(value).decode()


def _element(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, list):
        return _text(value, True)
    text = _text(value, False)
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _whole(text: str) -> str:
    if not _WHOLE.fullmatch(text):
        raise malformed()
    if len(text) < 16 and text.lstrip("-")[:1] != "0":
        return text
    number = int(text)
    return str(number) if -_SAFE <= number <= _SAFE else f'"{text}"'


def _float(text: str) -> str:
    if text in ("NaN", "Infinity", "-Infinity"):
        return f'"{text}"'
    if not _FLOAT.fullmatch(text):
        raise malformed()
    return text


def _bool(text: str) -> str:
    if text not in ("t", "f"):
        raise malformed()
    return "true" if text == "t" else "false"


def _json(text: str) -> str:
    """JSON is passed on as it is, as its numbers may be too long for others; what others cannot parse is text."""
    try:
        from_json(text, allow_inf_nan=False, cache_strings=False)
    except ValueError:
        return _quoted(text)
    return text


def _stamp(text: str) -> str:
    """As ISO 8601 has it. Infinite times and those before our era stay as PostgreSQL writes them."""
    found = _STAMP.fullmatch(text)
    if found is None:
        return _quoted(text)
    zone = found[3] or ""
    return f'"{found[1]}T{found[2]}{zone + ":00" if len(zone) == 3 else zone}"'


_WRITERS: Mapping[int, Callable[[str], str]] = {
    16: _bool, 20: _whole, 21: _whole, 23: _whole, 26: _whole, 700: _float, 701: _float, 114: _json, 3802: _json,
    1114: _stamp, 1184: _stamp,
}  # fmt: skip


def _writer(number: int) -> Callable[[str], str]:
    if number in ELEMENTS:
        element = _writer(ELEMENTS[number])
        return lambda text: _array(text, element)
    return _WRITERS.get(number, _quoted)


def _array(text: str, element: Callable[[str], str]) -> str:
    """An array in PostgreSQL's notation, ``{1,NULL,{"a b"}}``, as JSON. Bounds before it are left out."""
    if text.startswith("["):
        text = text.partition("=")[2]
    out, place, depth, end = list[str](), 0, 0, len(text)
    while place < end:
        letter = text[place]
        if letter == "{":
            depth += 1
            out.append("[")
            place += 1
        elif letter == "}":
            depth -= 1
            out.append("]")
            place += 1
        elif letter == ",":
            out.append(",")
            place += 1
        elif letter == '"':
            found = _IN_QUOTES.match(text, place + 1)
            if found is None or text[found.end() : found.end() + 1] != '"':
                raise malformed()
            out.append(element(_ESCAPED.sub(r"\1", found[0])))
            place = found.end() + 1
        else:
            found = _BARE.match(text, place)
            if found is None:
                raise malformed()
            out.append("null" if found[0].upper() == "NULL" else element(found[0]))
            place = found.end()
        if not 0 <= depth <= _MOST_DEPTH or (depth == 0 and place < end):
            raise malformed()
    return _checked("".join(out), depth)


def _checked(written: str, depth: int) -> str:
    """Braces and commas of a guest could be in any order."""
    try:
        if depth == 0 and written:
            from_json(written)
            return written
    except ValueError:
        pass
    raise malformed()


_IN_QUOTES = re.compile(r'[^"\\]*(?:\\.[^"\\]*)*', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_BARE = re.compile(r'[^{}",\\]+')

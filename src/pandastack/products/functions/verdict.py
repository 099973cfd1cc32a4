"""Whether a new version may serve, by what two copies of it say and by what is in its memory. Pure.

A guest is free to say what it likes: the check protects an owner from a mistake in their own code, not others from the
owner. What it says is parsed strictly all the same.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import urlsplit

from pydantic_core import from_json

from pandastack.contract.snapshots import LEAST_SOUGHT, MOST_SOUGHT
from pandastack.errors import BadRequestError, GuestError

_MOST_DRAWS = 32
_MOST_VALUES = 64
_MOST_SOCKETS = 20
_LONGEST = 200
_CREDENTIAL = re.compile(
    r"(^|_)(AUTH|CREDENTIALS?|DSN|KEY|PASS|PASSPHRASE|PASSWD|PASSWORD|PAT|PRIVATE|PWD|SECRETS?|TOKEN)(_|$)"
    r"|APIKEY|PASSWORD|SECRET|TOKEN",
    re.IGNORECASE,
)
_TOKEN = re.compile(r"[A-Za-z0-9+/=_.-]{16,}")
_LEAST_KINDS, _LEAST_DISTINCT = 3, 10
"""How many digits and letters, and how many different characters, a value has that looks random."""

DRAWS_HINT = (
    "its code seeds or replaces a generator as it is imported: do that in the handler, "
    "or give the code a generator of its own"
)
MEMORY_HINT = "take it out of the code and its files, and read it in the handler, from its environment"


@dataclass(frozen=True, slots=True)
class Copy:
    """What one copy of a machine says: a draw of each of its generators, and digests of what its modules hold that
    looks unique; each by name."""

    draws: Mapping[str, str]
    values: Mapping[str, str]


class Source(StrEnum):
    """Where a value comes from that must not be in a snapshot."""

    SECRET = "secret"
    ENV = "env"


@dataclass(frozen=True, slots=True)
class Sought:
    """A value by its name. ``data`` is looked for; ``is_credential``: finding it is a refusal, not a warning;
    ``is_random``: nothing has it by chance."""

    name: str
    source: Source
    data: bytes = field(repr=False)
    is_credential: bool
    is_random: bool


def sought(env: Mapping[str, str], secrets: Mapping[str, str]) -> list[Sought]:
    """The values that are looked for: those of a function's variables and of the workspace's secrets that are long
    enough. Of one with several lines, the longest line; of a long one, the beginning."""
    given = [(Source.SECRET, *each) for each in secrets.items()] + [(Source.ENV, *each) for each in env.items()]
    found = []
    for source, name, value in given:
        line = max(value.encode("utf-8", "surrogatepass").split(b"\n"), key=len)[:MOST_SOUGHT]
        if len(line) >= LEAST_SOUGHT and b"\0" not in line:
            is_random = looks_random(value)
            is_credential = source is Source.SECRET or is_random or _says_credential(name, value)
            found.append(Sought(name, source, line, is_credential, is_random))
    return found


def looks_random(value: str) -> bool:
    """Whether a value looks like a key: nothing else has it by chance."""
    digits, letters = (sum(map(kind, value)) for kind in (str.isdigit, str.isalpha))
    is_token = _TOKEN.fullmatch(value) and len(set(value)) >= _LEAST_DISTINCT
    return bool(is_token) and min(digits, letters) >= _LEAST_KINDS


def _says_credential(name: str, value: str) -> bool:
    try:
        has_password = bool(urlsplit(value).password)
    except ValueError:
        has_password = False
    return has_password or bool(_CREDENTIAL.search(name))


def plan_memory(
    values: Sequence[Sought], found: Collection[int], inherited: Collection[int]
) -> tuple[list[Sought], list[Sought]]:
    """Those of ``values`` that refuse a version, and those that are warned of, by their places among what was found.

    What the template's memory has too is a common word, unless it looks random.
    """
    told = [values[each] for each in sorted(found) if each not in inherited or values[each].is_random]
    return [each for each in told if each.is_credential], [each for each in told if not each.is_credential]


def repeated(first: Copy, second: Copy) -> list[str]:
    """The generators of which two copies have drawn the same."""
    return sorted(name for name, drawn in first.draws.items() if second.draws.get(name) == drawn)


def equal_values(first: Copy, second: Copy) -> list[str]:
    """The names of what looks unique and is equal in two copies."""
    return sorted(name for name, digest in first.values.items() if second.values.get(name) == digest)


def check_draws(first: Copy, second: Copy) -> None:
    """Raises :class:`BadRequestError` when two copies draw the same, or do not say what they draw."""
    if not first.draws or first.draws.keys() != second.draws.keys():
        raise BadRequestError("two copies of the version do not answer alike", hint="deploy it again")
    if names := repeated(first, second):
        message = f"every run would draw the same numbers from {', '.join(names)}"
        raise BadRequestError(message, field="code", detail={"generators": names}, hint=DRAWS_HINT)


def check_memory(found: Sequence[Sought], files: Mapping[bytes, str]) -> None:
    """Raises :class:`BadRequestError` for what was ``found``, with the file of the bundle that has it, if one has."""
    if not found:
        return
    told = [{"name": each.name, "source": each.source.value, "file": files.get(each.data)} for each in found]
    names = ", ".join(
        f"{'the secret' if each.source is Source.SECRET else 'the variable'} {each.name}" for each in found
    )
    places = sorted({files[each.data] for each in found if each.data in files})
    where = f" (it is in {', '.join(places)})" if places else ""
    message = f"the memory of the version holds the value of {names}{where}"
    raise BadRequestError(message, field="code", detail={"found": told}, hint=MEMORY_HINT)


def warnings_of(
    values: Sequence[Sought], files: Mapping[bytes, str], equal: Sequence[str], open_: Sequence[str]
) -> list[str]:
    """What the owner is told of a version that serves."""
    return [
        *(
            f"the memory holds the value of {each.name}{' from ' + files[each.data] if each.data in files else ''}:"
            " a change of the variable does not change it there"
            for each in values
        ),
        *(f"{name} looks unique, and is the same in every run" for name in equal),
        *(f"a connection was open at the capture, and is dead in every run: {each}" for each in open_),
    ]


def parse_copy(data: bytes) -> Copy:
    """What a copy has answered. Raises :class:`GuestError`."""
    try:
        given = from_json(data, allow_inf_nan=False)
        return Copy(_texts(given["draws"], _MOST_DRAWS), _texts(given["values"], _MOST_VALUES))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise GuestError("the answer of a copy of the version is malformed") from error


def parse_sockets(given: object) -> tuple[str, ...]:
    """The connections that a process has reported; none if that makes no sense."""
    listed = given if isinstance(given, list) else []
    return tuple(each for each in listed[:_MOST_SOCKETS] if isinstance(each, str) and _is_line(each))


def _texts(given: Mapping[str, object], most: int) -> dict[str, str]:
    if len(given) > most:
        raise ValueError("too many")
    made = {name: text for name, text in given.items() if isinstance(text, str) and _is_line(name) and _is_line(text)}
    if len(made) < len(given):
        raise ValueError("no line of text")
    return made


def _is_line(text: str) -> bool:
    return 0 < len(text) <= _LONGEST and text.isprintable()

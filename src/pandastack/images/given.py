"""What a caller gives with a recipe: the values of its build arguments and secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from pandastack.errors import BadRequestError
from pandastack.images.mounts import SECRET_ID

MOST_ARGUMENTS = 100
MOST_SECRETS = 16

ARGUMENT_MAX = 128 * 1024
"""Bytes of the value of a build argument: Linux gives a program no longer strings."""

ARGUMENTS_MAX = 1024 * 1024
"""Bytes that all of them may have together."""

SECRET_MAX = 500 * 1024
"""Bytes of a secret, as in BuildKit."""

SECRETS_MAX = 1024 * 1024

_ARGUMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")


@dataclass(frozen=True)
class Given:
    """``arguments`` by their names, ``secrets`` by their ids."""

    arguments: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    def check(self) -> None:
        """Raise :class:`BadRequestError` for what no build takes. It repeats no value."""
        _check_count("build_args", len(self.arguments), MOST_ARGUMENTS)
        for name, text in self.arguments.items():
            if not _ARGUMENT.fullmatch(name):
                raise _wrong("build_args", f"{name[:64]!r} is not the name of an argument")
            if "\0" in text:
                raise _wrong(f"build_args.{name}", "must not contain NUL")
            _check_size(f"build_args.{name}", len(_encoded(name, text)), ARGUMENT_MAX)
        _check_size("build_args", sum(len(text.encode()) for text in self.arguments.values()), ARGUMENTS_MAX)
        _check_count("secrets", len(self.secrets), MOST_SECRETS)
        for name, value in self.secrets.items():
            if not re.fullmatch(SECRET_ID, name):
                raise _wrong("secrets", f"{name[:64]!r} is not the id of a secret")
            if not value:
                raise _wrong(f"secrets.{name}", "must not be empty")
            _check_size(f"secrets.{name}", len(value), SECRET_MAX)
        _check_size("secrets", sum(map(len, self.secrets.values())), SECRETS_MAX)


def _encoded(name: str, text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise _wrong(f"build_args.{name}", "must be text") from None


def _check_count(field_name: str, count: int, most: int) -> None:
    if count > most:
        raise _wrong(field_name, f"at most {most}, not {count}")


def _check_size(field_name: str, size: int, most: int) -> None:
    if size > most:
        raise _wrong(field_name, f"must have at most {most} bytes")


def _wrong(field_name: str, problem: str) -> BadRequestError:
    return BadRequestError(f"{field_name}: {problem}", field=field_name)

"""The values that instructions have once their variables are replaced: checked, and in one form."""

from __future__ import annotations

import posixpath
import re
import signal
from typing import Any

from pandastack.errors import BadRequestError
from pandastack.images import instructions
from pandastack.images.patterns import compile_pattern, has_wildcard


def name_in_stage(source: str) -> str:
    """The absolute name of a file in another stage. ``..`` ends at that stage's root."""
    if has_wildcard(source):
        compile_pattern(source)  # a malformed one is refused here
    return posixpath.normpath(f"/{source}").replace("//", "/")


def permissions_of(text: str) -> int | None:
    if not text:
        return None
    if not re.fullmatch(r"0?[0-7]{3,4}", text):
        raise BadRequestError(f"--chmod={text} is not an octal mode", hint="--chmod=755")
    return int(text, 8)


def healthcheck_of(step: instructions.Healthcheck) -> dict[str, Any]:
    """As in the configuration of an image: ``test`` says by its first word how the rest is run."""
    match step.command:
        case None:
            return {"test": ("NONE",)}
        case str():
            return {"test": ("CMD-SHELL", step.command), **dict(step.options)}
        case _:
            return {"test": ("CMD", *step.command), **dict(step.options)}


def signal_of(text: str) -> str:
    """A signal's name, with SIG before it or not, or its number."""
    name = text.upper().removeprefix("SIG")
    realtime = re.fullmatch(r"RTM(IN(\+[0-9]{1,2})?|AX(-[0-9]{1,2})?)", name)
    number = text.isascii() and text.isdigit() and len(text) <= 2 and 1 <= int(text) <= 64
    if not number and not realtime and f"SIG{name}" not in signal.Signals.__members__:
        raise BadRequestError(f"STOPSIGNAL {text[:100]!r} is not a signal", hint="SIGTERM, or a number")
    return text if number else f"SIG{name}"


def user_of(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\$?(:[A-Za-z0-9_][A-Za-z0-9_.-]*)?", text):
        raise BadRequestError(f"USER {text!r} is not user[:group]")
    return text


def port_of(text: str) -> str:
    """``80``, ``80/udp`` or ``8000-8010``, always returned with its protocol."""
    match = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp))?", text)
    ports = [int(number) for number in match.groups()[:2] if number] if match else []
    if not match or not all(0 < port < 65536 for port in ports) or ports != sorted(ports):
        raise BadRequestError(f"EXPOSE {text!r} is not a port")
    return f"{text.partition('/')[0]}/{match[3] or 'tcp'}"

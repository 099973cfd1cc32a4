"""The identity that a machine receives with each RESUME."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from pandastack.errors import BadRequestError
from pandastack.guest import frames
from pandastack.guest.keys import ResumeKey
from pandastack.model.size import Size


@dataclass(frozen=True, slots=True)
class Identity:
    """Given to a guest by every RESUME. ``machine_id`` is 32 hexadecimal digits, ``hostname`` at most 64 bytes.

    ``entropy`` is 32 to 512 bytes, ``generation`` a number of at most 64 bits; no other machine ever gets the same.
    ``env`` replaces the environment that every command in the guest starts with. With ``frozen``, programs stay frozen
    until the next RESUME or the next command, for a machine that is only inspected. ``continues`` says that the machine
    continues exactly where it stopped and is no copy: its tunnels stay. ``connected`` says that it never left its
    network: its connections to other machines stay; else programs find them reset. With ``size`` it gets another size,
    within its virtual hardware, before a program runs.
    """

    hostname: str
    machine_id: str
    env: Mapping[str, str] = field(default_factory=dict)
    generation: int = 0
    entropy: bytes = field(default_factory=lambda: os.urandom(64), repr=False)
    frozen: bool = False
    continues: bool = False
    connected: bool = False
    size: Size | None = None


def environment(env: Mapping[str, str]) -> list[bytes]:
    """``KEY=value`` for each variable; BadRequestError for a name or value that is impossible in an environment."""
    for key, value in env.items():
        if not key or "=" in key or "\0" in key or "\0" in value:
            raise BadRequestError(f"{key!r} is not a valid environment variable", field="env")
    return [f"{key}={value}".encode("utf-8", "surrogateescape") for key, value in env.items()]


def _size_fields(size: Size) -> list[tuple[int, bytes]]:
    return [
        (ResumeKey.CPUS, frames.u32(size.cpus)),
        (ResumeKey.MEMORY_MB, frames.u32(size.memory_mb)),
        (ResumeKey.DISK_MB, frames.u32(size.disk_mb)),
    ]


def resume_payload(nonce: bytes, identity: Identity) -> bytes:
    """The payload of a RESUME, with the present time. The nonce comes first: the guest looks for it."""
    payload = frames.encode_fields(
        [
            (ResumeKey.NONCE, nonce),
            (ResumeKey.TIME_NS, frames.u64(time.time_ns())),
            (ResumeKey.ENTROPY, identity.entropy),
            (ResumeKey.GENERATION, frames.u64(identity.generation)),
            (ResumeKey.HOSTNAME, identity.hostname.encode()),
            (ResumeKey.MACHINE_ID, identity.machine_id.encode()),
            *((ResumeKey.ENV, item) for item in environment(identity.env)),
            *([(ResumeKey.FROZEN, b"")] if identity.frozen else []),
            *([(ResumeKey.CONTINUES, b"")] if identity.continues else []),
            *([(ResumeKey.CONNECTED, b"")] if identity.connected else []),
            *(_size_fields(identity.size) if identity.size else []),
        ]
    )
    if len(payload) % 256 == 0:  # the first byte after a run of zeros must not be zero
        payload += frames.encode_fields([(ResumeKey.PADDING, b"")])
    if len(payload) > frames.PAYLOAD_MAX:
        raise BadRequestError("the environment is longer than 64 KiB", field="env")
    return payload

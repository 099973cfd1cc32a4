"""Where the engine's files lie on its host."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from pandastack.host import facts
from pandastack.host.files import own_directory

FIRST_UID = 0x6000_0000
"""The first host user of machines: far above any that the host's administrator hands out."""

SLOTS = 16384
"""Host users of an engine. Each of its machines has a slot number of its own, and a user by it."""

MACHINES = SLOTS - 6
"""The machines an engine can have at once: the last users are those of builds, of the egress process, of the broker, of
the gateway, of the recording proxies and of what fetches images."""


USER_RANGES = 16384
"""Ranges of host users, of :data:`SLOTS` each. All lie below 0x7000_0000."""


@dataclass(frozen=True)
class Layout:
    """The directories of one engine: ``data`` must survive, ``cache`` can be rebuilt."""

    data: Path
    cache: Path
    chosen_range: int | None = None
    """The range of host users, if it is not the one that the tag prefers."""
    chosen_tag: str = ""
    """The tag, if it is not that of the data directory."""

    @property
    def tag(self) -> str:
        """What marks this engine's processes among those of other engines on the host: 8 hex digits."""
        return self.chosen_tag or hashlib.sha256(str(self.data.resolve()).encode()).hexdigest()[:8]

    @property
    def engine(self) -> Path:
        return self.data / "engine"

    @property
    def templates(self) -> Path:
        return self.engine / "templates"

    @property
    def sockets(self) -> Path:
        """Unix socket paths are limited to 107 bytes, so these do not live under the data directory."""
        return runtime_directory() / self.tag

    @property
    def gateway(self) -> Path:
        """The sockets between this installation's server and its gateway; they outlive a server that was killed.

        As root it lies beside the runtime directory, which the gateway's user may not enter.
        """
        runtime = runtime_directory()
        if facts.is_root():
            return runtime.with_name(f"{runtime.name}-{self.tag}-gateway")
        return runtime / f"{self.tag}-gateway"

    @property
    def authority(self) -> Path:
        """The installation's certificate authority: guests that use secrets trust it, and so may users of previews."""
        return self.engine / "broker"

    @property
    def cgroup(self) -> str:
        """The name of the control group of this engine's machines."""
        return f"pandastack-{self.tag}"

    @property
    def build_uid(self) -> int:
        """The host user of this engine's build machines."""
        return self.uid(SLOTS - 1)

    @property
    def egress_uid(self) -> int:
        """The host user of the process that resolves names and connects for guests."""
        return self.uid(SLOTS - 2)

    @property
    def broker_uid(self) -> int:
        """The host user of the process that knows secrets."""
        return self.uid(SLOTS - 3)

    @property
    def gateway_uid(self) -> int:
        """The host user of the process that answers requests for previews, and SSH."""
        return self.uid(SLOTS - 4)

    @property
    def recorder_uid(self) -> int:
        """The host user of the processes that fetch for hermetic builds."""
        return self.uid(SLOTS - 5)

    @property
    def fetch_uid(self) -> int:
        """The host user of the program that fetches images from registries."""
        return self.uid(SLOTS - 6)

    @property
    def helpers(self) -> Path:
        """The directories of those processes. It lies beside the runtime directory, which only the server may enter."""
        return runtime_directory().with_name(f"pandastack-{self.tag}")

    @property
    def inward(self) -> Path:
        """Where the gateway listens for connections of the egress process. It outlives a server that was killed."""
        return self.helpers / "inward" / "gateway.sock"

    @property
    def users_lock(self) -> Path:
        """Locked by the engine that uses this range of host users: two data directories may prefer the same range."""
        return runtime_directory() / f"users-{self.user_range}.lock"

    @property
    def user_range(self) -> int:
        return int(self.tag, 16) % USER_RANGES if self.chosen_range is None else self.chosen_range

    def uid(self, slot: int) -> int:
        """The host user of the machine in ``slot``."""
        return FIRST_UID + self.user_range * SLOTS + slot


def user_range(uid: int) -> int:
    """The range that a machine's host user belongs to."""
    return (uid - FIRST_UID) // SLOTS


def runtime_directory() -> Path:
    """Where sockets and pid files go; a reboot of the host removes it."""
    if facts.is_root():
        return Path("/run/pandastack")
    return Path(os.environ.get("XDG_RUNTIME_DIR") or f"/tmp/pandastack-{os.geteuid()}") / "pandastack"


def open_runtime_directory() -> None:
    """Make the runtime directory, accessible to this user only.

    Without root and without XDG_RUNTIME_DIR it lies in a directory that all users share. Raises :class:`ServerError`
    when another user may have created it first.
    """
    runtime = runtime_directory()
    shared = not facts.is_root() and not os.environ.get("XDG_RUNTIME_DIR")
    for path in (runtime.parent, runtime) if shared else (runtime,):
        own_directory(path, hint=f"remove {path} after a look at it, or set XDG_RUNTIME_DIR to a directory of your own")

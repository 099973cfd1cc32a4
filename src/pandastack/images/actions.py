"""What a build machine has to do, and the settings of the image that it makes, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from pandastack.images.copying import Ownership, Placed, write_tar
from pandastack.images.mounts import Mount, SecretMount

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class ImageConfig:
    """An image's settings for the programs in it. A template built on it starts from these.

    ``entrypoint``, ``cmd``, ``healthcheck``, ``volumes`` and ``stop_signal`` are recorded; nothing here acts on them.
    """

    env: Mapping[str, str] = field(default_factory=lambda: {"PATH": PATH})
    workdir: str = "/"
    user: str = "root"
    exposed: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    shell: tuple[str, ...] = ("/bin/sh", "-c")
    entrypoint: tuple[str, ...] = ()
    healthcheck: Mapping[str, Any] = field(default_factory=dict)
    volumes: tuple[str, ...] = ()
    stop_signal: str = ""

    def described(self) -> dict[str, Any]:
        """What a key is made of: settings that came later count only where they are set, so that older keys stay."""
        late = ("entrypoint", "healthcheck", "volumes", "stop_signal")
        return {name: value for name, value in asdict(self).items() if value or name not in late}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ImageConfig:
        """The configuration of which ``values`` are the fields, as JSON has them."""
        known: dict[str, Any] = {name: tuple(each) if isinstance(each, list) else each for name, each in values.items()}
        return cls(**known)


@dataclass(frozen=True)
class Action:
    """One thing to do; ``text`` and ``line`` say where it comes from, for progress and errors."""

    key: str
    line: int
    text: str


@dataclass(frozen=True)
class RunAction(Action):
    """Run ``argv`` as ``user`` (``name[:group]`` or numbers) in ``cwd`` (made if missing) with exactly
    ``env`` and the variables of its secrets; ``stdin`` is its input, ``mounts`` are there while it runs."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str
    user: str
    stdin: bytes = b""
    mounts: tuple[Mount, ...] = ()

    @property
    def secrets(self) -> tuple[SecretMount, ...]:
        return tuple(each for each in self.mounts if isinstance(each, SecretMount))


@dataclass(frozen=True)
class CopyAction(Action):
    """Unpack :meth:`write_tar` in the guest with :data:`pandastack.images.copying.EXTRACT`, as root.

    The names of ``owner`` are looked up there first, with :data:`pandastack.images.copying.OWNER_NUMBERS`."""

    files: tuple[Placed, ...]
    owner: Ownership
    permissions: int | None

    def write_tar(self, owner: Ownership, into: IO[bytes]) -> None:
        """Write the files as those of ``owner``, which has numbers."""
        write_tar(self.files, owner, self.permissions, into)


@dataclass(frozen=True)
class DirectoryAction(Action):
    """Make the folder ``path`` and its parents, owned by root, if it is missing."""

    path: str


@dataclass(frozen=True)
class UnpackAction(Action):
    """Unpack the local archive ``path`` into the folder ``destination`` with
    :data:`pandastack.images.archives.UNPACK`, as root. ``program`` decompresses it. Without an ``owner`` the
    members have the archive's."""

    path: Path
    program: str
    destination: str
    owner: Ownership | None


@dataclass(frozen=True)
class StageCopyAction(Action):
    """Copy from the disk of another stage with :data:`pandastack.images.between_stages.SCRIPT`, as root.

    ``sources`` are absolute in that stage; each may be a pattern. Without an ``owner`` files keep theirs.
    """

    stage: int
    sources: tuple[str, ...]
    destination: str
    owner: Ownership | None
    permissions: int | None

"""The key by which clients know this installation: made once, and kept with its data."""

from __future__ import annotations

from pathlib import Path

import asyncssh

from pandastack.errors import ServerError

_NAME = "ssh_host_ed25519_key"


def kept_host_key(directory: Path) -> asyncssh.SSHKey:
    """The host key in ``directory``, which is made there if there is none. Raises :class:`ServerError`."""
    path = directory / _NAME
    try:
        if not path.exists():
            _make(path)
        return asyncssh.read_private_key(path)
    except (OSError, asyncssh.KeyImportError) as error:
        raise ServerError(
            f"the SSH host key cannot be read: {error}",
            hint=f"restore {path}, or delete it: clients then have to accept a new one",
            public="the SSH host key cannot be read",
        ) from error


def _make(path: Path) -> None:
    """Whole or not at all: of two processes that make one, both use the first."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    temporary.touch(mode=0o600)
    temporary.write_bytes(asyncssh.generate_private_key("ssh-ed25519").export_private_key())
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        pass
    finally:
        temporary.unlink(missing_ok=True)


def public_line(key: asyncssh.SSHKey) -> str:
    """The public key as ``known_hosts`` has it: ``ssh-ed25519 AAAA…``."""
    return " ".join(key.export_public_key().decode().split()[:2])

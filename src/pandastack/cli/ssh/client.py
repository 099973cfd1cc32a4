"""What OpenSSH's client needs to reach a sandbox: a key that the server knows, and the key of the server."""

from __future__ import annotations

import getpass
import shutil
import socket
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pandastack import config
from pandastack.errors import ConflictError, PandastackError
from pandastack.host.files import write_atomically

if TYPE_CHECKING:
    from pandastack import Client


@dataclass(frozen=True)
class Target:
    """How OpenSSH's client reaches a sandbox."""

    sandbox_id: str
    host: str
    port: int
    key: Path
    known_hosts: Path

    def options(self) -> dict[str, str]:
        """The options of ``ssh_config`` in which it differs from any other host."""
        return {
            "HostName": self.host,
            "Port": str(self.port),
            "User": self.sandbox_id,
            "IdentityFile": str(self.key),
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": str(self.known_hosts),
            "StrictHostKeyChecking": "yes",
            "HostKeyAlgorithms": "ssh-ed25519",
        }

    def argv(self, arguments: list[str]) -> list[str]:
        """The command line of ``ssh``."""
        options = [each for name, value in self.options().items() for each in ("-o", f"{name}={_quoted(value)}")]
        return ["ssh", *options, self.alias, *arguments]

    def block(self) -> str:
        """The same as a block of ``ssh_config``."""
        lines = [f"  {name} {_quoted(value)}" for name, value in self.options().items()]
        return "\n".join([f"Host {self.alias}", *lines])

    @property
    def alias(self) -> str:
        """The name that the block has."""
        return f"pandastack-{self.sandbox_id}"


def reach(client: Client, sandbox_id: str) -> Target:
    """A target for a sandbox that exists, after making a key and adding it to the server when that is needed.

    Raises NotFoundError, UnavailableError without an SSH server there, PandastackError without OpenSSH's programs.
    """
    sandbox_id = client.sandboxes.get(sandbox_id).id
    door = client.ssh_keys.door()
    host = urlsplit(config.resolve_client().api_url).hostname or "127.0.0.1"
    directory = config.config_file().parent / "ssh"
    key = _own_key(directory)
    _add(client, key.with_suffix(".pub").read_text(encoding="utf-8"))
    known_hosts = directory / "known_hosts"
    _know(known_hosts, host, door["port"], door["host_key"])
    return Target(sandbox_id, host, door["port"], key, known_hosts)


def known_line(host: str, port: int, host_key: str) -> str:
    """A line of ``known_hosts``."""
    return f"[{host}]:{port} {host_key}"


def _own_key(directory: Path) -> Path:
    key = directory / "id_ed25519"
    if key.exists() and key.with_suffix(".pub").exists():
        return key
    program = shutil.which("ssh-keygen")
    if program is None or shutil.which("ssh") is None:
        raise PandastackError("OpenSSH's client is not installed", hint="apt-get install openssh-client")
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    key.unlink(missing_ok=True)
    comment = f"pandastack {getpass.getuser()}@{socket.gethostname()}"
    argv = [program, "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(key)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PandastackError(f"ssh-keygen failed: {done.stderr.strip()[:300]}")
    return key


def _add(client: Client, public_key: str) -> None:
    line = " ".join(public_key.split()[:2])
    if any(each.get("public_key") == line for each in client.ssh_keys.list()):
        return
    with suppress(ConflictError):  # another command was faster
        client.ssh_keys.add(public_key)


def _know(path: Path, host: str, port: int, host_key: str) -> None:
    line = known_line(host, port, host_key)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        lines = []
    if line not in lines:
        others = [each for each in lines if not each.startswith(f"[{host}]:{port} ")]
        write_atomically(path, "".join(f"{each}\n" for each in (*others, line)).encode())


def _quoted(value: str) -> str:
    return f'"{value}"' if " " in value else value

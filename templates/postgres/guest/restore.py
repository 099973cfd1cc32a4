"""Puts another database in the place of this machine's empty one: a base backup, then the log up to a time.

usage: restore.py MEMORY_MB [TIME]     TIME as PostgreSQL reads it; without it: to the end of the log
       restore.py fetch NAME PATH      what the server calls for a file of the log

The control plane connects to a Unix socket and sends the backup, a gzip file of tar: pieces that begin with their
lengths, the last one empty. From then on this program asks it for files of the log by name, a line each. The answer is
a length and a gzip file, or -1. A line ``.`` says that the server runs, ``!`` and a text why it does not.
"""

import gzip
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

SOCKETS = Path("/run/postgresql")
DATA = Path("/var/lib/postgresql/16/main")
BIN = Path("/usr/lib/postgresql/16/bin")
HERE = Path("/usr/lib/pandastack/postgres")
CONTROL = ["sh", "/usr/lib/pandastack/postgres-control"]
AS_POSTGRES = ["setpriv", "--reuid=5432", "--regid=5432", "--clear-groups", "--no-new-privs"]
SHORT = "recovery ended before configured recovery target was reached"
STOP_SECONDS, START_SECONDS, CONNECT_SECONDS = 120, 120, 120


class Failed(Exception):
    """What the control plane is told."""


class Feed:
    """The control plane's end."""

    def __init__(self, connection: socket.socket) -> None:
        self.file = connection.makefile("rwb")

    def exactly(self, count: int) -> bytes:
        data = self.file.read(count)
        if len(data) < count:
            raise Failed("the control plane has gone")
        return data

    def base_into(self, process: "subprocess.Popen[bytes]") -> None:
        while length := struct.unpack("!I", self.exactly(4))[0]:
            process.stdin.write(self.exactly(length))
        process.stdin.close()

    def segment(self, name: str) -> bytes | None:
        self.say(name)
        length = struct.unpack("!i", self.exactly(4))[0]
        return None if length < 0 else gzip.decompress(self.exactly(length))

    def say(self, line: str) -> None:
        self.file.write(line.encode() + b"\n")
        self.file.flush()


def listen(name: str, mode: int) -> socket.socket:
    path = SOCKETS / name
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    path.chmod(mode)
    listener.listen(8)
    return listener


def stop_server() -> None:
    """The service's script starts no other one while there is this file."""
    (SOCKETS / "hold").touch()
    if (DATA / "postmaster.pid").exists():
        end(int((DATA / "postmaster.pid").read_text().split()[0]))


def end(pid: int) -> None:
    os.kill(pid, signal.SIGINT)
    deadline = time.monotonic() + STOP_SECONDS
    while (DATA / "postmaster.pid").exists():
        if time.monotonic() > deadline:
            raise Failed("a server does not stop")
        time.sleep(0.02)


def unpack(feed: Feed, memory: str) -> None:
    for each in DATA.iterdir():
        shutil.rmtree(each) if each.is_dir() and not each.is_symlink() else each.unlink()
    argv = [*AS_POSTGRES, "tar", "-xz", "-C", str(DATA)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE) as tar:
        feed.base_into(tar)
    if tar.returncode != 0:
        raise Failed("the backup is damaged")
    subprocess.run([*CONTROL, "write-settings", memory, str(DATA / "pandastack.conf")], check=True)
    for name in ("postgresql.conf", "pg_hba.conf"):  # this template's own: the backup may be of an older one
        (DATA / name).write_bytes((HERE / name).read_bytes())
    (DATA / "recovery.signal").touch()
    subprocess.run([*AS_POSTGRES, "sync"], check=True)


def recover(feed: Feed, fetching: socket.socket, until: str | None) -> str:
    """Run a server until it has recovered, and stop it; returns what it says last, empty when it has."""
    inside = SOCKETS / "recovery"
    inside.mkdir(mode=0o777, exist_ok=True)
    inside.chmod(0o777)
    settings = {
        "restore_command": f"python3 -SE {Path(__file__).resolve()} fetch %f %p",
        "recovery_target_action": "promote",
        "recovery_target_timeline": "current",
        "hot_standby": "off",  # it would want as many clients at once as its source
        "listen_addresses": "",
        "unix_socket_directories": str(inside),
        **({"recovery_target_time": until} if until else {}),
    }
    argv = [*AS_POSTGRES, str(BIN / "postgres"), "-D", str(DATA)]
    for name, value in settings.items():
        argv += ["-c", f"{name}={value}"]
    log = inside / "log"
    with log.open("wb") as file:
        server = subprocess.Popen(argv, stderr=file, stdout=file, cwd="/")
    while server.poll() is None:
        serve(feed, fetching)
        if is_ready():
            end(server.pid)
            server.wait(STOP_SECONDS)
            return ""
    lines = [line for line in log.read_text(errors="replace").splitlines() if "FATAL" in line or "PANIC" in line]
    return lines[-1] if lines else f"status {server.returncode}"


def is_ready() -> bool:
    """The postmaster's own word: it has ended its recovery."""
    try:
        lines = (DATA / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return False
    return len(lines) >= 8 and lines[7].strip() == "ready"


def serve(feed: Feed, fetching: socket.socket) -> None:
    """Answer one :func:`fetch`, if one comes soon."""
    try:
        connection, _ = fetching.accept()
    except TimeoutError:
        return
    with connection, connection.makefile("rwb") as file:
        name = file.readline(64).decode("ascii", "replace").strip()
        found = feed.segment(name) if len(name) == 24 and name.isalnum() else None
        file.write(struct.pack("!i", -1 if found is None else len(found)) + (found or b""))


def fetch(name: str, path: str) -> int:
    """What the server runs for each file that it wants."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(SOCKETS / ".fetch"))
        with connection.makefile("rwb") as file:
            file.write(name.encode() + b"\n")
            file.flush()
            length = struct.unpack("!i", file.read(4))[0]
            if length < 0:
                return 1
            data = file.read(length)
    if len(data) != length:
        return 200  # ends the recovery: there is more, but it did not arrive
    Path(path).write_bytes(data)
    return 0


def restore(feed: Feed, memory: str, until: str | None) -> None:
    stop_server()
    unpack(feed, memory)
    with listen(".fetch", 0o666) as fetching:
        fetching.settimeout(0.02)
        said = recover(feed, fetching, until)
        if SHORT in said:  # nothing was committed after that time: the end of the log is what it was then
            said = recover(feed, fetching, None)
    if said:
        raise Failed(said)
    (SOCKETS / "hold").unlink()
    deadline = time.monotonic() + START_SECONDS
    while not is_ready():
        if time.monotonic() > deadline:
            raise Failed("the server does not start")
        time.sleep(0.02)


def main() -> int:
    if sys.argv[1] == "fetch":
        return fetch(sys.argv[2], sys.argv[3])
    with listen(".restore", 0o600) as door:
        door.settimeout(CONNECT_SECONDS)
        connection, _ = door.accept()
    (SOCKETS / ".restore").unlink()
    connection.settimeout(None)
    with connection:
        feed = Feed(connection)
        try:
            restore(feed, sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None)
        except (Failed, OSError, EOFError, subprocess.SubprocessError) as error:
            feed.say("!" + " ".join(str(error).split())[:500])
            return 1
        feed.say(".")
    return 0


if __name__ == "__main__":
    sys.exit(main())

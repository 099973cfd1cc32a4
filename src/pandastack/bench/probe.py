"""Programs that run in a guest and measure its network against an outside world, with Python's standard library."""

from __future__ import annotations

import json
import shlex
from typing import Any

from pandastack.bench.api import Api
from pandastack.bench.outside import TCP_PORT, UDP_PORT
from pandastack.errors import PandastackError

PATH = "/run/bench-network.py"

PROGRAM = r"""
import json, socket, sys, time

verb, host, port, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
now = time.perf_counter


def dial(line):
    made = socket.create_connection((address, port), 20)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    made.sendall(line)
    return made


def connect():
    began = now()
    with dial(b"echo\n?") as made:
        made.recv(1)
        return (now() - began) * 1000


def trip(made):
    began = now()
    made.sendall(b"?")
    made.recv(1)
    return (now() - began) * 1000


def upload():
    began, chunk = now(), bytes(1 << 18)
    with dial(b"sink\n") as made:
        for _ in range(4 * count):
            made.sendall(chunk)
        made.shutdown(socket.SHUT_WR)
        made.recv(999)
    return count * 1.048576 / (now() - began)


def download():
    began, buffer = now(), bytearray(1 << 18)
    with dial(b"source %d\n" % (count << 20)) as made:
        while made.recv_into(buffer):
            pass
    return count * 1.048576 / (now() - began)


def query(name):
    labels = b"".join(bytes([len(each)]) + each.encode() for each in name.split("."))
    asked = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00" + labels + b"\x00\x00\x01\x00\x01"
    began = now()
    resolver.send(asked)
    answer = resolver.recv(4096)
    if answer[3] & 15:
        raise SystemExit("%s: code %d" % (name, answer[3] & 15))
    return (now() - began) * 1000


if verb == "dns":
    servers = [line.split()[1] for line in open("/etc/resolv.conf") if line.startswith("nameserver")]
    resolver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    resolver.settimeout(10)
    resolver.connect((servers[0], 53))
    print(json.dumps([query(host.replace("*", "n%d" % (port + number))) for number in range(count)]))
    sys.exit()

address = socket.gethostbyname(host)
if verb == "connect":
    print(json.dumps([connect() for _ in range(count)]))
elif verb == "latency":
    with dial(b"echo\n") as made:
        print(json.dumps([trip(made) for _ in range(count)]))
elif verb == "upload":
    print(json.dumps([upload()]))
elif verb == "download":
    print(json.dumps([download()]))
elif verb.startswith("stamp-"):
    # A steady stream until it is cut, or told to end.
    line, ends = verb.replace("-", " ").encode() + b"\n", now() + 60
    if port == %UDP_PORT%:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.connect((address, port))
        piece = line
    else:
        made, piece = dial(line), b"."
    while now() < ends:
        try:
            made.sendall(piece)
        except PermissionError:
            pass
        time.sleep(0.002)
""".replace("%UDP_PORT%", str(UDP_PORT))
"""``VERB HOST PORT COUNT``: prints a list of milliseconds or of MB/s; ``stamp-KEY`` sends a stream instead."""


def install(api: Api, sandbox: str) -> None:
    """Put :data:`PROGRAM` into a sandbox."""
    execute(api, sandbox, f"cat > {PATH} <<'END'\n{PROGRAM}\nEND")


def probe(api: Api, sandbox: str, verb: str, host: str, count: int, port: int = TCP_PORT) -> list[float]:
    """What the program measured. Raises :class:`PandastackError` with its last words when it failed."""
    answer: list[float] = json.loads(execute(api, sandbox, f"python3 {PATH} {verb} {shlex.quote(host)} {port} {count}"))
    return answer


def start_stream(api: Api, sandbox: str, key: str, host: str, port: int) -> None:
    """Send a piece about every 2 ms to the world, which stamps them with ``key``, until they are cut."""
    program = f"setsid python3 {PATH} stamp-{key} {shlex.quote(host)} {port} 0"
    execute(api, sandbox, f"{program} </dev/null >/dev/null 2>&1 &")


def end_streams(api: Api, sandbox: str) -> None:
    """End those that nothing has cut."""
    execute(api, sandbox, "pkill -f '[b]ench-network.py stamp' || true")


def execute(api: Api, sandbox: str, cmd: str) -> str:
    answer: dict[str, Any] = api.execute(sandbox, cmd)
    if answer["exit_code"]:
        raise PandastackError(f"a measuring program failed in the guest: {answer['stderr'][-500:]}")
    return str(answer["stdout"])

"""All ways out of a guest, tried from inside at once."""

from __future__ import annotations

import json
import shlex

from pandastack import Sandbox
from pandastack.bench.outside import METADATA, TCP_PORT, UDP_PORT
from tests.support.outside import World

PROGRAM = r"""
import json, socket, ssl, struct, sys, threading

name, address, resolver, lan, metadata, tcp, udp = sys.argv[1:8]
tcp, udp, SECONDS = int(tcp), int(udp), 6
results = {}


def query(server, over_tcp=False):
    labels = b"".join(bytes([len(each)]) + each.encode() for each in name.split("."))
    asked = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00" + labels + b"\x00\x00\x01\x00\x01"
    if over_tcp:
        with socket.create_connection((server, 53), SECONDS) as made:
            made.sendall(struct.pack("!H", len(asked)) + asked)
            answer = made.recv(4096)[2:]
    else:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
            made.settimeout(SECONDS)
            made.sendto(asked, (server, 53))
            answer = made.recv(4096)
    if len(answer) < 12 or answer[3] & 15 or not answer[7]:
        raise OSError("no address: %r" % answer[:12])


def http(where, port=80, target="/", host=name, secure=False):
    request = "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n" % (target, host)
    with socket.create_connection((where, port), SECONDS) as made:
        if secure:
            context = ssl._create_unverified_context()
            made = context.wrap_socket(made, server_hostname=host or None)
        made.sendall(request.encode())
        got = b""
        while data := made.recv(65536):
            got += data
    if not got.startswith(b"HTTP/1.1 200"):
        raise OSError(got[:200].decode("latin-1"))


def stream(where):
    with socket.create_connection((where, tcp), SECONDS) as made:
        made.sendall(b"echo\nhello")
        if made.recv(99) != b"hello":
            raise OSError("no echo")


def datagram(where, port=udp):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.settimeout(SECONDS)
        made.sendto(b"hello", (where, port))
        if made.recv(99) != b"hello":
            raise OSError("no echo")


def tunnel():
    with socket.create_connection((address, 80), SECONDS) as made:
        made.sendall(b"CONNECT %s:443 HTTP/1.1\r\nHost: %s:443\r\n\r\n" % (name.encode(), name.encode()))
        if b" 200 " not in made.recv(4096).split(b"\r\n")[0] + b" ":
            raise OSError("no tunnel")


PATHS = {
    "dns": lambda: query("10.0.2.2"),
    "dns by tcp": lambda: query("10.0.2.2", over_tcp=True),
    "foreign dns": lambda: query(resolver),
    "foreign dns by tcp": lambda: query(resolver, over_tcp=True),
    "http": lambda: http(name),
    "http to its address": lambda: http(address),
    "absolute form": lambda: http(address, target="http://%s/" % name),
    "connect": tunnel,
    "https": lambda: http(name, 443, secure=True),
    "https to its address": lambda: http(address, 443, secure=True),
    "https without a name": lambda: http(address, 443, host="", secure=True),
    "tcp": lambda: stream(name),
    "tcp to its address": lambda: stream(address),
    "udp": lambda: datagram(address),
    "private http": lambda: http(lan),
    "private tcp": lambda: stream(lan),
    "private udp": lambda: datagram(lan),
    "metadata": lambda: http(metadata, host=metadata),
}


def attempt(path, work):
    try:
        work()
        results[path] = ""
    except Exception as error:
        results[path] = "%s: %s" % (type(error).__name__, error)


threads = [threading.Thread(target=attempt, args=each, daemon=True) for each in PATHS.items()]
for each in threads:
    each.start()
for each in threads:
    each.join(4 * SECONDS)
print(json.dumps({path: results.get(path, "no answer") for path in PATHS}))
"""

NAMED = frozenset({"dns", "dns by tcp", "http", "https", "tcp"})
"""What a policy leaves open that allows a name."""

NEVER = frozenset({"private http", "private tcp", "private udp", "metadata"})
"""What no policy leaves open."""


def try_paths(sandbox: Sandbox, world: World, name: str, address: str) -> dict[str, str]:
    """How each path ends: the reason why it is closed, or nothing. ``name`` and ``address`` are where to go."""
    words = [name, address, world.resolver, world.lan, METADATA, str(TCP_PORT), str(UDP_PORT)]
    program = f"cat > /run/paths.py <<'END'\n{PROGRAM}\nEND\npython3 /run/paths.py {shlex.join(words)}"
    found: dict[str, str] = json.loads(sandbox.exec(program, check=True, timeout_seconds=90).stdout)
    return found


def open_paths(sandbox: Sandbox, world: World, name: str, address: str) -> set[str]:
    """The paths that are open."""
    return {path for path, why in try_paths(sandbox, world, name, address).items() if not why}

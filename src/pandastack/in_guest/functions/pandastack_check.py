"""What a deploy asks a copy of the machine: what its generators draw, what of the function's modules looks unique, and
which connections were open. Two copies of one snapshot must not draw the same.
"""
# mypy: ignore-errors
# ruff: noqa: PTH115, PTH123, PTH208 - pathlib takes longer to import than all of this

import contextlib
import hashlib
import os
import re
import socket
import sys

MOST_VALUES = 50
MOST_SOCKETS = 20
LONGEST_NAME = 150
_UNIQUE = re.compile(
    r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    r"|(?=.*[a-f])(?=.*\d)[0-9a-f]{16,128}"
    r"|(?=.*[A-Z])(?=.*[a-z])(?=.*\d)[\w+/-]{20,128}={0,2}"
)
_INSTALLED = ("/site-packages/", "/dist-packages/", "/node_modules/")


_DRAWS = {
    "random": ("random", lambda module: str(module.getrandbits(128))),
    "random.random": ("random", lambda module: repr(module.random())),
    "secrets": ("secrets", lambda module: module.token_hex(16)),
    "uuid.uuid4": ("uuid", lambda module: str(module.uuid4())),
    "uuid.uuid1": ("uuid", lambda module: str(module.uuid1())),
    "ssl.RAND_bytes": ("ssl", lambda module: module.RAND_bytes(16).hex()),
    "numpy.random": ("numpy.random", lambda module: module.bytes(16).hex()),
}


def draws():
    """A draw from each generator that the process has: a module that is not imported has no state to repeat."""
    found = {"os.urandom": os.urandom(16).hex()}
    for name, (module, draw) in _DRAWS.items():
        if module in sys.modules:
            with contextlib.suppress(Exception):  # a module of the function's own with this name
                found[name] = draw(sys.modules[module])
    return found


def values(root):
    """Digests of what the modules below ``root`` hold that looks as if there were one of it, by name. What stands in a
    module's own text is a constant."""
    found = {}
    for module in list(sys.modules.values()):
        with contextlib.suppress(Exception):  # anything may be in there
            for name, shown in _held(module, root):
                if len(found) < MOST_VALUES:
                    digest = hashlib.sha256(shown.encode("utf-8", "replace")).hexdigest()[:32]
                    found[f"{module.__name__}.{name}"[:LONGEST_NAME]] = digest
    return found


def _held(module, root):
    path = module.__file__
    if not path.startswith(root + "/") or any(each in path for each in _INSTALLED):
        return
    with open(path, errors="replace") as file:
        text = file.read()
    for name, value in list(vars(module).items()):
        shown = None if name.startswith("__") else _unique(value)
        if shown is not None and shown not in text:
            yield name, shown


def _unique(value):
    """The value as text if it looks unique, else None. A generator of the function's own is drawn from: this machine
    ends after the check."""
    kind = f"{type(value).__module__}.{type(value).__name__}"
    if isinstance(value, str):
        return value if _UNIQUE.fullmatch(value) else None
    if kind == "uuid.UUID":
        return str(value)
    if isinstance(value, bytes):
        return value.hex() if 16 <= len(value) <= 128 and len(set(value)) > len(value) // 2 else None
    if kind == "random.Random":
        return str(value.getrandbits(128))
    if kind.startswith("numpy.random.") and kind.endswith((".Generator", ".RandomState")):
        return value.bytes(16).hex()
    return None


def sockets():
    """The connections over the network that are open, as the kernel lists them."""
    mine = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            mine.add(os.readlink(f"/proc/self/fd/{name}"))
        except OSError:  # the one that lists them
            continue
    found = []
    for kind in ("tcp", "tcp6", "udp", "udp6"):
        try:
            with open(f"/proc/net/{kind}") as file:
                rows = [line.split() for line in file][1:]
        except OSError:  # no IPv6
            continue
        for row in rows:
            address, port = row[2].split(":")
            if f"socket:[{row[9]}]" in mine and int(port, 16):
                found.append(f"{kind[:3]} to {_address(address)}:{int(port, 16)}")
    return found[:MOST_SOCKETS]


def _address(text):
    words = [bytes.fromhex(text[place : place + 8])[::-1] for place in range(0, len(text), 8)]
    return socket.inet_ntop(socket.AF_INET if len(words) == 1 else socket.AF_INET6, b"".join(words))

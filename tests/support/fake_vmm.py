"""A program that is started as a VMM and then does what a test wants."""

from __future__ import annotations

import sys
from pathlib import Path

FAKE = """#!{python}
import itertools, json, os, socket, sys, time

def listen():
    option = next(word for word in sys.argv if word.startswith("socket,id=control"))
    peer, _ = socket.socket(fileno=int(option.split("fd=")[1].split(",")[0])).accept()
    peer.sendall(b'{{"QMP": {{}}}}\\n')
    return peer, peer.makefile("rb")

def answer(line, **fields):
    peer.sendall(json.dumps({{"id": json.loads(line)["id"], **fields}}).encode() + b"\\n")

def write_out(data):
    while data:
        try:
            data = data[os.write(2, data):]
        except BlockingIOError:
            time.sleep(0.0005)

peer, lines = listen()
answer(next(lines), **{{"return": {{}}}})
{behaviour}
time.sleep(60)
"""


def fake(directory: Path, behaviour: str) -> Path:
    """A program that behaves as a VMM until it has said that it is ready."""
    program = directory / "vmm"
    program.write_text(FAKE.format(python=sys.executable, behaviour=behaviour))
    program.chmod(0o755)
    return program

"""Public keys as callers send them."""

from __future__ import annotations

import base64
import struct

import asyncssh
import pytest

from pandastack.errors import BadRequestError
from pandastack.services.ssh.public_key import parsed_public_key

ED25519 = asyncssh.generate_private_key("ssh-ed25519", comment="me@home")
LINE = ED25519.export_public_key().decode()


@pytest.mark.parametrize("kind", ["ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp521", "ssh-rsa"])
def test_keys_of_openssh_are_read(kind: str) -> None:
    key = asyncssh.generate_private_key(kind)
    read = parsed_public_key(key.export_public_key().decode())
    assert read.fingerprint == key.get_fingerprint("sha256")
    assert read.line.split()[0] == kind
    assert asyncssh.import_public_key(read.line).get_fingerprint() == read.fingerprint


def test_the_comment_is_kept_apart() -> None:
    read = parsed_public_key(LINE)
    assert read.comment == "me@home"
    assert read.line == " ".join(LINE.split()[:2])


def blob(*strings: bytes) -> str:
    return base64.b64encode(b"".join(struct.pack(">I", len(each)) + each for each in strings)).decode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n",
        "ssh-ed25519",
        "ssh-ed25519 AAAA",
        "ssh-ed25519 !!!!",
        "ssh-dss " + blob(b"ssh-dss", b"p", b"q", b"g", b"y"),
        "ssh-ed25519 " + blob(b"ssh-ed25519", b"x" * 31),
        "ssh-ed25519 " + blob(b"ssh-ed25519", b"x" * 32, b"more"),
        "ssh-ed25519 " + blob(b"ssh-rsa", b"x" * 32),
        "ssh-ed25519 " + base64.b64encode(b"\xff\xff\xff\xff").decode(),
        "ssh-rsa " + blob(b"ssh-rsa", b"\1\0\1", b"\x7f" * 128),
        'command="x" ' + LINE,
        LINE + LINE,
        "ssh-ed25519 " + "A" * 9000,
        ED25519.export_private_key().decode(),
    ],
    ids=range(15),
)
def test_anything_else_is_refused_with_its_field(text: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        parsed_public_key(text)
    assert caught.value.field == "public_key"


def test_a_private_key_is_not_repeated() -> None:
    with pytest.raises(BadRequestError) as caught:
        parsed_public_key(ED25519.export_private_key().decode())
    assert "private" in caught.value.message and "AAAA" not in caught.value.message

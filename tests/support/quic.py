"""The first datagram of a QUIC client, as a browser sends it for HTTP/3 (RFC 9000, RFC 9001 5)."""

from __future__ import annotations

import hmac
import secrets

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from tests.support.tls import extension, handmade_hello, server_name

SIZE = 1200
"""The least that an Initial is padded to (RFC 9000 14.1)."""

_SALT = bytes.fromhex("38762cf7f55934b34d179ae6a4c80cadccbb7f0a")
_H3 = extension(16, b"\0\3\2h3")
_VERSION_13 = extension(43, b"\2\3\4")
_PARAMETERS = extension(57, b"\4\4\x80\1\0\0")


def client_keys(connection: bytes) -> tuple[bytes, bytes, bytes]:
    """Key, nonce and key of the header's protection for Initials of the client (RFC 9001 5.2)."""
    secret = _derived(hmac.digest(_SALT, connection, "sha256"), b"client in", 32)
    return _derived(secret, b"quic key", 16), _derived(secret, b"quic iv", 12), _derived(secret, b"quic hp", 16)


def initial(name: str) -> bytes:
    """An Initial with a ClientHello for ``name`` that asks for HTTP/3."""
    hello = handmade_hello(server_name(name.encode()), _VERSION_13, _H3, _PARAMETERS)[5:]
    frames = b"\6\0" + _number(len(hello)) + hello
    connection, source = secrets.token_bytes(8), secrets.token_bytes(8)
    key, nonce, mask_key = client_keys(connection)
    front = b"\xc3\0\0\0\1" + b"\x08" + connection + b"\x08" + source + b"\0"
    packet = b"\0\0\0\0"
    size = SIZE - len(front) - 2 - len(packet)
    header = front + _number(len(packet) + size) + packet
    sealed = AESGCM(key).encrypt(nonce, frames.ljust(size - 16, b"\0"), header)  # packet number 0: the nonce as it is
    encryptor = Cipher(algorithms.AES(mask_key), modes.ECB()).encryptor()
    mask = encryptor.update(sealed[:16])
    hidden = bytes(one ^ two for one, two in zip(packet, mask[1:5], strict=True))
    return bytes([header[0] ^ mask[0] & 0x0F]) + header[1:-4] + hidden + sealed


def _derived(secret: bytes, label: bytes, size: int) -> bytes:
    """HKDF-Expand-Label of TLS 1.3 (RFC 8446 7.1)."""
    info = size.to_bytes(2) + bytes([6 + len(label)]) + b"tls13 " + label + b"\0"
    return HKDFExpand(SHA256(), size, info).derive(secret)


def _number(value: int) -> bytes:
    """In two bytes (RFC 9000 16)."""
    return (0x4000 | value).to_bytes(2)

"""Public keys as OpenSSH writes them (RFC 4253, section 6.6; RFC 8709; OpenSSH's PROTOCOL.u2f)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import struct
from dataclasses import dataclass

from pandastack.errors import BadRequestError

TYPES = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "ssh-rsa",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
)
_MOST_CHARACTERS = 8192
_LEAST_RSA_BITS = 2048
_MOST_STRINGS = 8
_STRINGS = {
    "ssh-ed25519": 2,
    "ssh-rsa": 3,
    "sk-ssh-ed25519@openssh.com": 3,
    "sk-ecdsa-sha2-nistp256@openssh.com": 4,
}
"""How many strings a key is made of; the others have 3."""
_EXAMPLE = "the content of a file like ~/.ssh/id_ed25519.pub"


@dataclass(frozen=True, slots=True)
class PublicKey:
    """``line`` is ``TYPE BASE64`` without a comment; ``fingerprint`` as ``ssh-keygen -l`` shows it."""

    line: str
    fingerprint: str
    comment: str


def parsed_public_key(text: str, field: str = "public_key") -> PublicKey:
    """Read one line of a ``.pub`` file. Raises :class:`BadRequestError`."""
    if "PRIVATE KEY" in text[:_MOST_CHARACTERS]:
        raise BadRequestError(
            f"{field}: this is a private key, which nobody but you should have", field=field, hint=f"give {_EXAMPLE}"
        )
    line = text.strip()
    if not line or len(line) > _MOST_CHARACTERS or not line.isprintable():
        raise BadRequestError(f"{field}: must be one line, a public key", field=field, hint=f"give {_EXAMPLE}")
    kind, encoded, comment = [*line.split(None, 2), "", ""][:3]
    if kind not in TYPES:
        raise BadRequestError(
            f"{field}: unknown type of key {kind[:40]!r}", field=field, hint=f"types are {', '.join(TYPES)}"
        )
    try:
        blob = base64.b64decode(encoded, validate=True)
        strings = _strings(blob)
    except (binascii.Error, ValueError) as error:
        raise BadRequestError(f"{field}: malformed key", field=field, hint=f"give {_EXAMPLE}") from error
    _check(kind, strings, field)
    digest = base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
    return PublicKey(f"{kind} {base64.b64encode(blob).decode()}", f"SHA256:{digest}", _printable(comment))


def _strings(blob: bytes) -> list[bytes]:
    """The strings that ``blob`` is made of."""
    found: list[bytes] = []
    at = 0
    while at < len(blob):
        if len(blob) - at < 4 or len(found) == _MOST_STRINGS:
            raise ValueError
        (length,) = struct.unpack_from(">I", blob, at)
        if length > len(blob) - at - 4:
            raise ValueError
        found.append(blob[at + 4 : at + 4 + length])
        at += 4 + length
    return found


def _check(kind: str, strings: list[bytes], field: str) -> None:
    if not strings or strings[0] != kind.encode() or len(strings) != _STRINGS.get(kind, 3) or not all(strings):
        raise BadRequestError(f"{field}: malformed key", field=field, hint=f"give {_EXAMPLE}")
    if "ed25519" in kind and len(strings[1]) != 32:
        raise BadRequestError(f"{field}: malformed key", field=field, hint=f"give {_EXAMPLE}")
    if kind == "ssh-rsa" and int.from_bytes(strings[2]).bit_length() < _LEAST_RSA_BITS:
        raise BadRequestError(f"{field}: RSA keys must have at least {_LEAST_RSA_BITS} bits", field=field)


def _printable(comment: str) -> str:
    return re.sub(r"[^ -~]", "?", comment.strip())[:100]

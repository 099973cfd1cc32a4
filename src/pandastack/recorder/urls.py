"""URLs in their one spelling. Pure.

Source: RFC 3986; the normal form is that of section 6.2.2.1 and 6.2.3 for scheme, host and port, and the path and query
as they were sent.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address

LONGEST_URL = 8192
"""Characters."""

_PORTS = {"http": 80, "https": 443}
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_URL = re.compile(r"(https?)://([^/?#]{1,300})([/?][!-~]*)?", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, slots=True)
class Url:
    """What a request asks for. ``target`` is the path with the query."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def authority(self) -> str:
        """Host, and the port unless it is the scheme's own."""
        return self.host if self.port == _PORTS[self.scheme] else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.target}"


def parse_url(text: str) -> Url:
    """An absolute URL. Raises ``ValueError`` that says what is wrong with it."""
    if len(text) > LONGEST_URL:
        raise ValueError(f"the URL is longer than {LONGEST_URL} characters")
    found = _URL.fullmatch(text)
    if found is None or "#" in text:
        raise ValueError("malformed URL")
    scheme, authority, target = found[1].lower(), found[2], found[3] or "/"
    host, port = parse_authority(authority, _PORTS[scheme])
    return Url(scheme, host, port, target if target.startswith("/") else f"/{target}")


def parse_authority(text: str, default: int) -> tuple[str, int]:
    """Host and port of ``HOST[:PORT]``. Raises ``ValueError``."""
    if "@" in text:
        raise ValueError("a user name or password in a URL is not recorded")
    host, colon, port = text.partition(":")
    if colon and not re.fullmatch(r"[0-9]{1,5}", port, re.ASCII):
        raise ValueError("malformed port")
    number = int(port) if colon else default
    if not 0 < number < 1 << 16:
        raise ValueError("malformed port")
    return _normal_host(host), number


def _normal_host(text: str) -> str:
    """A domain name in lower case without its final dot, or an IPv4 address in its usual spelling."""
    host = text.removesuffix(".").lower()
    labels = host.split(".")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError("malformed host name")
    if not re.fullmatch(r"[0-9]+|0x[0-9a-f]*", labels[-1]):
        return host
    try:
        return str(IPv4Address(host))
    except ValueError:
        raise ValueError("malformed address") from None

"""What requests about endpoints may say. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import AddressValueError, IPv4Address
from urllib.parse import SplitResult, urlsplit

from pandastack.errors import BadRequestError
from pandastack.model.webhooks import EVERYTHING, is_filter

LONGEST_URL = 2048
LONGEST_DESCRIPTION = 256
MOST_FILTERS = 50


class _Wrong(Exception):
    def __init__(self, what: str, hint: str | None = None) -> None:
        super().__init__(what)
        self.hint = hint


def checked_url(text: str, *, plain: bool, field: str = "url") -> str:
    """The address of an endpoint. ``plain``: http is allowed beside https. Raises :class:`BadRequestError`."""
    try:
        return _checked_url(text, plain=plain)
    except _Wrong as error:
        raise BadRequestError(f"{field}: {error}", field=field, hint=error.hint) from None


def _checked_url(text: str, *, plain: bool) -> str:
    if not 0 < len(text) <= LONGEST_URL or not text.isascii() or not text.isprintable() or " " in text:
        raise _Wrong(f"must have from 1 to {LONGEST_URL} visible ASCII characters")
    parts = _split(text)
    if parts.scheme not in (("https", "http") if plain else ("https",)) or "\\" in text:
        hint = None if plain else "the operator allows http for networks of PANDASTACK_WEBHOOK_NETWORKS only"
        raise _Wrong("must begin with https://", hint)
    if parts.username is not None or parts.password is not None:
        raise _Wrong("must not have a user name or password", "check the signature instead")
    if parts.fragment or "#" in text:
        raise _Wrong("must not have a fragment")
    if not parts.hostname or "[" in parts.netloc:
        raise _Wrong("must name a host, or an IPv4 address")
    return text


def _split(text: str) -> SplitResult:
    try:
        parts = urlsplit(text)
        if parts.port == 0:
            raise ValueError
    except ValueError:
        raise _Wrong("is not a URL") from None
    return parts


def literal_address(url: str) -> IPv4Address | None:
    """The address that a URL names without a look-up, or None."""
    try:
        return IPv4Address(urlsplit(url).hostname or "")
    except AddressValueError:
        return None


def checked_events(given: Sequence[str] | None) -> tuple[str, ...]:
    """Filters, each once; by default everything. Raises :class:`BadRequestError`."""
    found = tuple(dict.fromkeys(given or (EVERYTHING,)))
    if len(found) > MOST_FILTERS:
        raise BadRequestError(f"events: at most {MOST_FILTERS}", field="events")
    for each in found:
        if not is_filter(each):
            hint = "GET /v1/webhooks/events lists the types; sandbox.* and * are possible, too"
            raise BadRequestError(f"events: unknown event {each[:64]!r}", field="events", hint=hint)
    return found


def checked_description(text: str | None) -> str:
    """Text for people. Raises :class:`BadRequestError`."""
    found = text or ""
    if len(found) > LONGEST_DESCRIPTION or not found.isprintable():
        message = f"description: must be one line of at most {LONGEST_DESCRIPTION} characters"
        raise BadRequestError(message, field="description")
    return found

"""Who may see what listens in a sandbox, and whose requests wake it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from pandastack.errors import BadRequestError

PREVIEWS, WAKE = "previews", "wake"
"""The keys in a sandbox's metadata and in ``template.toml``."""


class Visibility(StrEnum):
    """Who may see previews by host name."""

    OPEN = "open"
    """Anyone who knows the name."""
    PRIVATE = "private"
    """Bearers of a token of the preview."""


class WakePolicy(StrEnum):
    """Which requests for previews wake a sleeping sandbox."""

    ANY = "any"
    AUTHED = "authed"
    """Those with a token of the preview or an API token."""
    OFF = "off"


class Waker(StrEnum):
    """Who is at the other end of a connection that the gateway took."""

    VISITOR = "visitor"
    """Somebody without credentials who knows the name of a preview."""
    BEARER = "bearer"
    """A request for a preview with a token of it or an API token."""
    MEMBER = "member"
    """A member's own connection, by SSH or port-forward: no preview."""


@dataclass(frozen=True, slots=True)
class PreviewDefaults:
    """What a template says for sandboxes that say nothing themselves."""

    previews: Visibility | None = None
    wake: WakePolicy | None = None


def may_wake(policy: WakePolicy, waker: Waker) -> bool:
    """Whether a connection of ``waker`` wakes a sandbox with ``policy``."""
    match policy:
        case WakePolicy.ANY:
            return True
        case WakePolicy.AUTHED:
            return waker is not Waker.VISITOR
        case WakePolicy.OFF:
            return waker is Waker.MEMBER


def is_private(workspace: Visibility, metadata: Mapping[str, str], server: str) -> bool:
    """Whether previews of a sandbox want a token: its workspace's word, then its own, then the server's setting."""
    own = metadata.get(PREVIEWS, server)
    return workspace is Visibility.PRIVATE or own != Visibility.OPEN  # what cannot be read is private


def wake_policy(metadata: Mapping[str, str]) -> WakePolicy:
    """The policy of a sandbox. A value that cannot be read, of a record made before there were any, is ``any``."""
    try:
        return WakePolicy(metadata.get(WAKE, WakePolicy.ANY))
    except ValueError:
        return WakePolicy.ANY


def with_defaults(metadata: Mapping[str, str], defaults: PreviewDefaults) -> dict[str, str]:
    """The metadata of a new sandbox with what its template says. A template opens nothing that the server closes."""
    missing: dict[str, str] = {}
    if defaults.previews is Visibility.PRIVATE:
        missing[PREVIEWS] = defaults.previews
    if defaults.wake is not None:
        missing[WAKE] = defaults.wake
    return {**missing, **metadata}


def check_metadata(metadata: Mapping[str, str]) -> None:
    """Raise :class:`BadRequestError` for a value of ``previews`` or ``wake`` that has no meaning."""
    if (given := metadata.get(PREVIEWS)) is not None:
        parse_visibility(given, f"metadata.{PREVIEWS}")
    if (given := metadata.get(WAKE)) is not None:
        parse_wake_policy(given, f"metadata.{WAKE}")


def parse_visibility(value: object, field: str) -> Visibility:
    """Raises :class:`BadRequestError` that names ``field``."""
    if not isinstance(value, str) or value not in list(Visibility):
        raise BadRequestError(f"{field}: must be open or private", field=field)
    return Visibility(value)


def parse_wake_policy(value: object, field: str) -> WakePolicy:
    """Raises :class:`BadRequestError` that names ``field``."""
    if not isinstance(value, str) or value not in list(WakePolicy):
        raise BadRequestError(f"{field}: must be any, authed or off", field=field)
    return WakePolicy(value)

"""What the machines of a function may reach, and which secrets its runs get."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pandastack.contract.network import SetSecrets
from pandastack.errors import BadRequestError
from pandastack.in_guest import TRUST_ENVIRONMENT
from pandastack.model.caller import Caller
from pandastack.model.network import NetworkPolicy
from pandastack.model.network_rules import from_json
from pandastack.services import ControlPlane

_CLOSED: Mapping[str, Any] = {"egress": "deny"}
"""In place of a template's policy that is not known."""


async def check_grants(plane: ControlPlane, caller: Caller, values: Mapping[str, Any]) -> None:
    """Check the ``secrets`` and the ``network`` among fields of a function: what they name must be there.

    Raises :class:`BadRequestError` with the field.
    """
    network = values.get("network") or {}
    plane.sandboxes.service_kinds.check(caller.workspace, tuple(network.get("services", ())), "network.services")
    wanted = {"secrets": values.get("secrets", ()), "network.secrets": network.get("secrets", ())}
    if not any(wanted.values()):
        return
    known = {each.name for each in await plane.secrets.list(caller)}
    for field, names in wanted.items():
        if unknown := [each for each in names if each not in known]:
            hint = "POST /v1/secrets creates one"
            raise BadRequestError(f"{field}: unknown secret {unknown[0][:64]!r}", field=field, hint=hint)


def run_network(
    own: Mapping[str, Any] | None, template: Mapping[str, Any] | None, secrets: Sequence[str]
) -> Mapping[str, Any] | None:
    """The policy of a run, as policies are stored, with the function's secrets: its ``own``, or that of the
    ``template`` at the deploy. None: the template's as it is. Pure."""
    base = own if own is not None else template
    names = list(dict.fromkeys((*(base or {}).get("secrets", ()), *secrets)))
    if own is None and not names:
        return None
    return {**(_CLOSED if base is None else base), "secrets": names}


def bare(network: Mapping[str, Any]) -> NetworkPolicy:
    """A stored policy without its secrets, for the machine of a deploy. Takes milliseconds for a long list. Pure."""
    return replace(from_json(network), secrets=())


def run_env(granted: SetSecrets) -> dict[str, str]:
    """What a run finds in its environment of its secrets, and so that it trusts the broker. Pure."""
    return {**(TRUST_ENVIRONMENT if granted.bindings else {}), **granted.env}

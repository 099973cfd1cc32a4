"""Network policies as callers write them: read from requests, written for answers and records, and changed.

A policy is ``"allow"``, ``"deny"`` or ``"none"``, or an object ``{"egress", "services", "secrets", "limits"}`` whose
``egress`` is one of these words or ``{"allow": [RULE…], "deny": [RULE…]}``. With ``allow`` everything else is denied;
``deny`` beats ``allow``. Unknown fields are errors: a rule that is misspelled must not be ignored.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields, replace
from typing import Any

from pandastack.errors import BadRequestError, ConflictError
from pandastack.model.network import Egress, Limits, NetworkPolicy, Rule
from pandastack.model.network_targets import covers, format_rule, parse_rule
from pandastack.model.services import FORMS, Service, listed, parse_service

MOST_RULES = 256
"""How many rules a list may have."""

MOST_NAMES = 64
"""How many services, and how many secrets, a policy may name."""

MOST_LIMIT = 100_000_000

_FIELDS = ("egress", "services", "secrets", "limits")
_WORDS = (Egress.ALLOW, Egress.DENY, Egress.NONE)
_SECRET = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")


def parse_policy(value: object, field: str = "network") -> NetworkPolicy:
    """The policy in a request; ``field`` is its place there, empty for the whole body.

    Takes milliseconds for a long list: call it in a thread unless ``value`` is a word. Raises :class:`BadRequestError`
    that names the field, also for a policy that contradicts itself.
    """
    policy = _parse(value, field, stored=False)
    _check_sense(policy, field)
    return policy


def from_json(value: object) -> NetworkPolicy:
    """The policy that :func:`to_json` wrote. Raises :class:`BadRequestError` for anything else."""
    return _parse(value, "network", stored=True)


def is_normal(policy: NetworkPolicy) -> bool:
    """Whether the policy is as :func:`parse_policy` makes them: packet filters and resolvers rely on its spelling."""
    try:
        return from_json(to_json(policy)) == policy
    except BadRequestError:
        return False


def to_json(policy: NetworkPolicy) -> dict[str, Any]:
    """The policy as the object that callers write."""
    lists = {"allow": [format_rule(each) for each in policy.allow], "deny": [format_rule(each) for each in policy.deny]}
    egress: object = policy.egress.value
    if policy.egress is Egress.LIST:
        egress = lists if policy.deny else {"allow": lists["allow"]}
    elif policy.deny:
        egress = {"deny": lists["deny"]}
    return {
        "egress": egress,
        "services": list(policy.services),
        "secrets": list(policy.secrets),
        "limits": asdict(policy.limits),
    }


def allowing(policy: NetworkPolicy, rule: Rule) -> NetworkPolicy:
    """The policy, changed as little as possible so that it allows ``rule``.

    Raises :class:`ConflictError` when the cable is out or a wider rule denies it, :class:`BadRequestError` when there
    are too many rules.
    """
    if policy.egress is Egress.NONE:
        raise ConflictError("the sandbox has no network", hint='set the policy to "deny" first, or to a list')
    deny = tuple(each for each in policy.deny if each != rule)
    if wider := next((each for each in deny if covers(each, rule)), None):
        hint = "set a policy without that rule"
        raise ConflictError(f"{format_rule(rule)} is denied by the rule {format_rule(wider)}", hint=hint)
    changed = replace(policy, deny=deny)
    if policy.egress is Egress.ALLOW or any(covers(each, rule) for each in policy.allow):
        return changed
    if len(policy.allow) >= MOST_RULES:
        raise BadRequestError(f"host: the policy allows {MOST_RULES} destinations already", field="host")
    return replace(changed, egress=Egress.LIST, allow=(*policy.allow, rule))


def allowing_service(policy: NetworkPolicy, service: Service) -> NetworkPolicy:
    """The policy with ``service`` among its services.

    Raises :class:`ConflictError` when the cable is out, :class:`BadRequestError` when there are too many services.
    """
    if policy.egress is Egress.NONE:
        raise ConflictError("the sandbox has no network", hint='set the policy to "deny" first, or to a list')
    if listed(policy.services, service):
        return policy
    if len(policy.services) >= MOST_NAMES:
        raise BadRequestError(f"host: the policy lists {MOST_NAMES} services already", field="host")
    return replace(policy, services=(*policy.services, str(service)))


def _parse(value: object, field: str, *, stored: bool) -> NetworkPolicy:
    whole = {"egress": value} if isinstance(value, str) else value
    given = _object(whole, field, _FIELDS, "a string or an object")
    egress, allow, deny = _egress(given.get("egress", Egress.ALLOW.value), _at(field, "egress"), stored)
    return NetworkPolicy(
        egress=egress,
        allow=allow,
        deny=deny,
        services=_names(given, "services", field, lambda text: parse_service(text) is not None, FORMS),
        secrets=_names(given, "secrets", field, lambda text: bool(_SECRET.fullmatch(text)), "the name of a secret"),
        limits=_limits(given.get("limits", {}), _at(field, "limits")),
    )


def _egress(value: object, field: str, stored: bool) -> tuple[Egress, tuple[Rule, ...], tuple[Rule, ...]]:
    if isinstance(value, str):
        if value not in _WORDS:
            words = ", ".join(map(repr, map(str, _WORDS)))
            raise _wrong(field, f"must be {words} or an object with lists", "a list allows only what it names")
        return Egress(value), (), ()
    given = _object(value, field, ("allow", "deny"), "a string or an object")
    if not given:
        raise _wrong(field, 'must have "allow" or "deny"', 'with "allow", all else is denied')
    allow, deny = (_rules(given.get(each, []), _at(field, each), stored) for each in ("allow", "deny"))
    return Egress.LIST if "allow" in given else Egress.ALLOW, allow, deny


def _rules(value: object, field: str, stored: bool) -> tuple[Rule, ...]:
    found = [
        parse_rule(each, f"{field}[{index}]", stored=stored)
        for index, each in enumerate(_list(value, field, MOST_RULES))
    ]
    return tuple(dict.fromkeys(found))


def _names(
    given: Mapping[str, Any], name: str, field: str, is_valid: Callable[[str], bool], expected: str
) -> tuple[str, ...]:
    where = _at(field, name)
    for index, each in enumerate(found := _list(given.get(name, []), where, MOST_NAMES)):
        if not isinstance(each, str) or not is_valid(each):
            raise _wrong(f"{where}[{index}]", f"must be {expected}")
    return tuple(dict.fromkeys(found))


def _limits(value: object, field: str) -> Limits:
    known = tuple(each.name for each in fields(Limits))
    given = _object(value, field, known)
    for name, each in given.items():
        if type(each) is not int or not 0 <= each <= MOST_LIMIT:
            raise _wrong(_at(field, name), f"must be a whole number from 0 (no limit) to {MOST_LIMIT}")
    return Limits(**given)


def _check_sense(policy: NetworkPolicy, field: str) -> None:
    """Raise an error for a policy of which one part makes another useless: its author has meant something else."""
    if policy.egress is Egress.NONE and policy.services:
        why = 'a sandbox with egress "none" reaches no services'
        raise _wrong(_at(field, "services"), why, 'with egress "deny" it reaches them and nothing else')
    for index, rule in enumerate(policy.allow):
        if wider := next((each for each in policy.deny if covers(each, rule)), None):
            where = f"{_at(field, 'egress.allow')}[{index}]"
            why = f"{format_rule(rule)} is denied by the rule {format_rule(wider)}"
            raise _wrong(where, why, '"deny" beats "allow": take one of them out')


def _object(value: object, field: str, known: tuple[str, ...], expected: str = "an object") -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(field, f"must be {expected}")
    for name in value:
        if name not in known:
            where = _at(field, str(name)[:64])
            raise _wrong(where, "is unknown", f"known: {', '.join(known)}")
    return value


def _list(value: object, field: str, most: int) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise _wrong(field, "must be a list")
    if len(value) > most:
        raise _wrong(field, f"must have at most {most} entries")
    return list(value)


def _at(field: str, name: str) -> str:
    return f"{field}.{name}" if field else name


def _wrong(field: str, why: str, hint: str | None = None) -> BadRequestError:
    return BadRequestError(f"{field}: {why}" if field else f"the policy {why}", field=field or None, hint=hint)

"""The text of a rule: ``TARGET[:PORT][/tcp|/udp]``, read into its one normal spelling and written again.

A target is a host name (``example.org``), the names below one (``*.example.org``), an IPv4 network (``203.0.113.0/24``)
or an IPv4 address. A name has its normal spelling after IDNA (UTS 46, https://www.unicode.org/reports/tr46/), in lower
case and without a dot at its end. What ends in a number is an address, and only its plain spelling is accepted: others
(``0x7f.1``) mean one thing to one program and another to the next (https://url.spec.whatwg.org/#ends-in-a-number-checker).
"""

from __future__ import annotations

import ipaddress
import re
from functools import cache
from typing import TYPE_CHECKING

from pandastack.errors import BadRequestError
from pandastack.model.network import FORBIDDEN, Protocol, Rule
from pandastack.model.services import is_inward

if TYPE_CHECKING:
    from publicsuffixlist import PublicSuffixList

SYNTAX = "a rule is HOST, *.DOMAIN or NETWORK/BITS, then :PORT, then /tcp or /udp, the last two as needed"

_LONGEST_NAME = 253
_LONGEST_RULE = 320
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PORT = re.compile(r"[0-9]{1,5}")
_HIGHEST_PORT = 65535
_WILDCARD = "*."
_FORBIDDEN = tuple(map(ipaddress.IPv4Network, FORBIDDEN))


def parse_rule(value: object, field: str, *, stored: bool = False) -> Rule:
    """The rule that ``value`` spells. Raises :class:`BadRequestError` for ``field``.

    ``stored``: it was accepted before, so what only advises callers is not checked again: lists of suffixes change.
    """
    if not isinstance(value, str):
        raise BadRequestError(f"{field}: a rule must be a string", field=field, hint=SYNTAX)
    if len(value) > _LONGEST_RULE:
        raise BadRequestError(f"{field}: a rule has at most {_LONGEST_RULE} characters", field=field, hint=SYNTAX)
    if "://" in value:
        raise _wrong(value, "a URL is no host", field, "write the host name alone, with :PORT if needed")
    text, protocol = _split_protocol(value)
    text, port = _split_port(text, value, field)
    network = "/" in text or _ends_in_number(text)
    target = _network(text, value, field) if network else _domain(text, value, field, stored=stored)
    if not network and _ends_in_number(target):  # wide digits become plain ones
        raise _wrong(value, "not a plain IPv4 address", field)
    if protocol is Protocol.UDP and not network:
        raise _wrong(value, "UDP has no names to check", field, "allow UDP by network, such as 203.0.113.0/24:53/udp")
    if network and not stored and _is_forbidden(target):
        raise _wrong(value, "no sandbox reaches this network", field, f"closed are: {', '.join(FORBIDDEN)}")
    return Rule(target, port, protocol)


def format_rule(rule: Rule) -> str:
    """The text of a rule. An address is written without the bits of its network."""
    port = "" if rule.port is None else f":{rule.port}"
    protocol = "" if rule.protocol is None else f"/{rule.protocol}"
    return f"{rule.target.removesuffix('/32') if rule.is_network else rule.target}{port}{protocol}"


def covers(wide: Rule, narrow: Rule) -> bool:
    """Whether ``wide`` applies to everything that ``narrow`` applies to."""
    if wide.port not in (None, narrow.port) or wide.protocol not in (None, narrow.protocol):
        return False
    if wide.target == narrow.target:
        return True
    if wide.is_network != narrow.is_network:
        return False
    if wide.is_network:
        return ipaddress.IPv4Network(narrow.target).subnet_of(ipaddress.IPv4Network(wide.target))
    return wide.target.startswith(_WILDCARD) and narrow.target.endswith(wide.target[1:])


def _split_protocol(text: str) -> tuple[str, Protocol | None]:
    head, slash, tail = text.rpartition("/")
    return (head, Protocol(tail.lower())) if slash and tail.lower() in list(Protocol) else (text, None)


def _split_port(text: str, value: str, field: str) -> tuple[str, int | None]:
    head, colon, tail = text.rpartition(":")
    if not colon:
        return text, None
    if ":" in head:
        raise _wrong(value, "sandboxes have IPv4 only", field)
    if not _PORT.fullmatch(tail) or not 1 <= int(tail) <= _HIGHEST_PORT:
        raise _wrong(value, f"the port must be a number from 1 to {_HIGHEST_PORT}", field, SYNTAX)
    return head, int(tail)


def _ends_in_number(text: str) -> bool:
    last = text.lower().removesuffix(".").rpartition(".")[2]
    return last.isascii() and _NUMBER.fullmatch(last) is not None


def _network(text: str, value: str, field: str) -> str:
    try:
        found = ipaddress.IPv4Network(text if "/" in text else f"{text}/32", strict=False)
        strict = "/" not in text or int(ipaddress.IPv4Address(text.partition("/")[0])) == int(found.network_address)
    except ValueError:
        what = "not an IPv4 network" if "/" in text else "not a plain IPv4 address"
        raise _wrong(value, what, field, SYNTAX) from None
    if not re.fullmatch(r"[0-9.]+(/[0-9]{1,2})?", text):
        raise _wrong(value, "not an IPv4 network", field, "write the number of bits after the slash")
    if not strict:
        raise _wrong(value, "an address within a network, not the network", field, f"the network is {found}")
    return str(found)


def _domain(text: str, value: str, field: str, *, stored: bool) -> str:
    wildcard = text.startswith(_WILDCARD)
    name = text[len(_WILDCARD) :] if wildcard else text
    if "*" in name:
        raise _wrong(value, "a * stands only for whole labels at the beginning", field, "write *.example.org")
    name = _normal_name(name, value, field, stored=stored)
    labels = name.split(".")
    if len(name) > _LONGEST_NAME or not all(map(_LABEL.fullmatch, labels)):
        raise _wrong(value, "not a host name", field, SYNTAX)
    if wildcard and not stored and _suffixes().privatesuffix(name) is None:
        raise _wrong(
            value, "such names belong to unrelated owners", field, "allow the domains that are needed one by one"
        )
    if len(labels) == 1 and not wildcard:
        raise _wrong(
            value,
            "a host name here has two labels or more",
            field,
            "names of the outside have a dot, such as example.org",
        )
    if is_inward(name):
        raise _wrong(
            value, "a name of this platform itself", field, '"services" lists what a sandbox reaches through it'
        )
    return f"{_WILDCARD}{name}" if wildcard else name


def _normal_name(name: str, value: str, field: str, *, stored: bool) -> str:
    name = name.lower()
    if len(name) > _LONGEST_NAME + 1:
        raise _wrong(value, "not a host name", field, SYNTAX)
    if not stored and (not name.isascii() or "xn--" in name):
        import idna

        try:
            name = idna.encode(name, uts46=True).decode("ascii")
        except (idna.IDNAError, UnicodeError):
            raise _wrong(value, "not a host name by IDNA", field, SYNTAX) from None
    return name.removesuffix(".")


def _is_forbidden(network: str) -> bool:
    found = ipaddress.IPv4Network(network)
    return any(found.subnet_of(each) for each in _FORBIDDEN)


@cache
def _suffixes() -> PublicSuffixList:
    """The public suffix list (https://publicsuffix.org), as shipped with its package. To read it takes a while."""
    from publicsuffixlist import PublicSuffixList

    return PublicSuffixList()


def _wrong(value: str, why: str, field: str, hint: str | None = None) -> BadRequestError:
    return BadRequestError(f"{field}: {value[:64]!r}: {why}", field=field, hint=hint)

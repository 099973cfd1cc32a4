"""Network policies as callers write them: one normal spelling, and errors that name the field."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandastack.errors import BadRequestError, ConflictError
from pandastack.model.network import OPEN, Egress, Limits, NetworkPolicy, Protocol, Rule
from pandastack.model.network_rules import (
    MOST_NAMES,
    MOST_RULES,
    allowing,
    allowing_service,
    from_json,
    is_normal,
    parse_policy,
    to_json,
)
from pandastack.model.network_targets import covers, format_rule, parse_rule
from pandastack.model.services import Service


def listed(*rules: str, deny: tuple[str, ...] = ()) -> NetworkPolicy:
    return parse_policy({"egress": {"allow": list(rules), "deny": list(deny)}})


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("example.org", Rule("example.org")),
        ("Example.ORG.", Rule("example.org")),
        ("*.Example.org:443", Rule("*.example.org", 443)),
        ("bücher.example:8443/TCP", Rule("xn--bcher-kva.example", 8443, Protocol.TCP)),
        ("BÜCHER.example", Rule("xn--bcher-kva.example")),
        ("xn--bcher-kva.example", Rule("xn--bcher-kva.example")),
        ("_dmarc.my_host.example", Rule("_dmarc.my_host.example")),
        ("203.0.113.7", Rule("203.0.113.7/32")),
        ("203.0.113.7/32:53/udp", Rule("203.0.113.7/32", 53, Protocol.UDP)),
        ("203.0.113.0/24", Rule("203.0.113.0/24")),
        ("203.0.113.0/24/udp", Rule("203.0.113.0/24", None, Protocol.UDP)),
        ("0.0.0.0/0:22", Rule("0.0.0.0/0", 22)),
    ],
)
def test_each_rule_has_one_normal_spelling(text: str, rule: Rule) -> None:
    assert parse_rule(text, "x") == rule
    assert parse_rule(format_rule(rule), "x") == rule


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not a host name"),
        ("example", "two labels"),
        ("localhost", "two labels"),
        ("a..example.org", "not a host name"),
        ("example.org..", "not a host name"),
        (".example.org", "not a host name"),
        ("-a.example.org", "not a host name"),
        ("a b.example.org", "not a host name"),
        ("a\n.example.org", "not a host name"),
        ("example.org\n", "not a host name"),
        (f"{'a' * 64}.example.org", "not a host name"),
        (".".join(["a" * 60] * 5), "not a host name"),
        ("xn--zzzzzz99999.example", "IDNA"),
        ("a.*.example.org", "whole labels"),
        ("*example.org", "whole labels"),
        ("*", "whole labels"),
        ("*.", "not a host name"),
        ("*.org", "unrelated owners"),
        ("*.co.uk", "unrelated owners"),
        ("*.github.io", "unrelated owners"),
        ("gateway.pandastack.internal", "platform"),
        ("*.pandastack.internal", "platform"),
        ("127.1", "plain IPv4"),
        ("0x7f.1", "plain IPv4"),
        ("2130706433", "plain IPv4"),
        ("01.2.3.4", "plain IPv4"),
        ("1.2.3.256", "plain IPv4"),
        ("1.2.3.4.", "plain IPv4"),
        ("１.2.3.4", "plain IPv4"),
        ("203.0.113.7/24", "within a network"),
        ("203.0.113.0/33", "IPv4 network"),
        ("203.0.113.0/255.255.255.0", "IPv4 network"),
        ("203.0.113.0/", "IPv4 network"),
        ("example.org/24", "IPv4 network"),
        ("example.org/path", "IPv4 network"),
        ("https://example.org", "URL"),
        ("[2001:db8::1]:443", "IPv4 only"),
        ("2001:db8::/32", "IPv4 only"),
        ("::ffff:203.0.113.7", "IPv4 only"),
        ("example.org:0", "from 1 to 65535"),
        ("example.org:65536", "from 1 to 65535"),
        ("example.org:", "from 1 to 65535"),
        ("example.org:80-90", "from 1 to 65535"),
        ("example.org:443/sctp", "from 1 to 65535"),
        ("example.org:٤٤٣", "from 1 to 65535"),
        ("example.org/udp", "UDP"),
        ("10.1.2.3", "no sandbox reaches"),
        ("169.254.169.254/32:80", "no sandbox reaches"),
        ("127.0.0.0/8", "no sandbox reaches"),
        ("a" * 400, "at most"),
        (None, "must be a string"),
        (443, "must be a string"),
    ],
)
def test_other_texts_are_refused_with_their_field(text: object, why: str) -> None:
    with pytest.raises(BadRequestError, match=why) as refused:
        parse_policy({"egress": {"allow": ["example.org", text]}})
    assert refused.value.field == "network.egress.allow[1]"


@given(st.text(max_size=400))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        rule = parse_rule(text, "x")
    except BadRequestError:
        return
    assert parse_rule(format_rule(rule), "x") == rule == parse_rule(format_rule(rule), "x", stored=True)


@pytest.mark.parametrize(
    ("value", "egress"),
    [
        ("allow", Egress.ALLOW),
        ("deny", Egress.DENY),
        ("none", Egress.NONE),
        ({}, Egress.ALLOW),
        ({"egress": "deny"}, Egress.DENY),
        ({"egress": {"allow": []}}, Egress.LIST),
        ({"egress": {"deny": ["example.org"]}}, Egress.ALLOW),
        ({"egress": {"allow": ["example.org"], "deny": ["a.example.org"]}}, Egress.LIST),
    ],
)
def test_policies_are_read_and_written(value: object, egress: Egress) -> None:
    policy = parse_policy(value)
    assert policy.egress is egress
    assert parse_policy(to_json(policy)) == from_json(to_json(policy)) == policy
    assert is_normal(policy)


def test_the_parts_of_a_policy() -> None:
    given: dict[str, Any] = {
        "egress": {"allow": ["example.org", "EXAMPLE.org", "203.0.113.0/24:443"]},
        "services": ["db:a1", "app:web"],
        "secrets": ["API_KEY"],
        "limits": {"kbytes_per_second": 1024},
    }
    policy = parse_policy(given)
    assert policy.allow == (Rule("example.org"), Rule("203.0.113.0/24", 443))
    assert (policy.services, policy.secrets) == (("db:a1", "app:web"), ("API_KEY",))
    assert policy.limits == Limits(kbytes_per_second=1024)
    assert parse_policy("allow") == OPEN


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (None, "network"),
        ([], "network"),
        ("all", "network.egress"),
        ({"egres": "deny"}, "network.egres"),
        ({"egress": None}, "network.egress"),
        ({"egress": "list"}, "network.egress"),
        ({"egress": {}}, "network.egress"),
        ({"egress": {"allowed": []}}, "network.egress.allowed"),
        ({"egress": {"allow": "example.org"}}, "network.egress.allow"),
        ({"egress": {"allow": ["1.1.1.1"] * (MOST_RULES + 1)}}, "network.egress.allow"),
        ({"egress": {"allow": ["example.org"], "deny": ["example.org"]}}, "network.egress.allow[0]"),
        ({"egress": {"allow": ["b.example.org:443"], "deny": ["*.example.org"]}}, "network.egress.allow[0]"),
        ({"egress": {"allow": ["203.0.113.7"], "deny": ["203.0.113.0/24"]}}, "network.egress.allow[0]"),
        ({"egress": "none", "services": ["db:1"]}, "network.services"),
        ({"services": ["db:../x"]}, "network.services[0]"),
        ({"services": ["db:1", "sandbox:b:0"]}, "network.services[1]"),
        ({"services": ["sandbox:b", 8000]}, "network.services[1]"),
        ({"services": ["db:1:5432"]}, "network.services[0]"),
        ({"services": [f"sandbox:b:{port}" for port in range(1, MOST_NAMES + 2)]}, "network.services"),
        ({"services": {"db": 1}}, "network.services"),
        ({"secrets": ["a-b"]}, "network.secrets[0]"),
        ({"limits": {"packets": 1}}, "network.limits.packets"),
        ({"limits": {"packets_per_second": -1}}, "network.limits.packets_per_second"),
        ({"limits": {"packets_per_second": True}}, "network.limits.packets_per_second"),
        ({"limits": {"packets_per_second": 1.5}}, "network.limits.packets_per_second"),
        ({"limits": 5}, "network.limits"),
    ],
)
def test_a_policy_that_is_wrong_names_the_field(value: object, field: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        parse_policy(value)
    assert refused.value.field == field
    assert refused.value.message.startswith(field)


def test_as_a_whole_body_fields_have_no_prefix() -> None:
    with pytest.raises(BadRequestError) as refused:
        parse_policy({"egress": {"allow": ["x"]}}, "")
    assert refused.value.field == "egress.allow[0]"
    with pytest.raises(BadRequestError, match="must be a string or an object"):
        parse_policy(7, "")


@pytest.mark.parametrize(
    ("wide", "narrow", "does"),
    [
        ("*.example.org", "a.example.org:443", True),
        ("*.example.org", "b.a.example.org", True),
        ("*.example.org", "*.a.example.org", True),
        ("*.example.org", "example.org", False),
        ("*.example.org", "badexample.org", False),
        ("example.org", "a.example.org", False),
        ("example.org:443", "example.org", False),
        ("example.org", "example.org:443/tcp", True),
        ("203.0.113.0/24", "203.0.113.7:53/udp", True),
        ("203.0.113.7", "203.0.113.0/24", False),
        ("0.0.0.0/0", "example.org", False),
    ],
)
def test_what_a_rule_covers(wide: str, narrow: str, does: bool) -> None:
    assert covers(parse_rule(wide, "x"), parse_rule(narrow, "x")) is does


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (parse_policy("deny"), listed("a.example.org:443")),
        (listed("b.example.org"), listed("b.example.org", "a.example.org:443")),
        (listed("*.example.org"), listed("*.example.org")),
        (listed("b.example.org", deny=("a.example.org:443",)), listed("b.example.org", "a.example.org:443")),
        (parse_policy({"egress": {"deny": ["a.example.org:443"]}}), OPEN),
        (OPEN, OPEN),
    ],
)
def test_allowing_changes_as_little_as_possible(before: NetworkPolicy, after: NetworkPolicy) -> None:
    assert allowing(before, Rule("a.example.org", 443)) == after


def test_what_allowing_cannot_do() -> None:
    with pytest.raises(ConflictError, match=r"denied by the rule \*\.example\.org"):
        allowing(listed(deny=("*.example.org",)), Rule("a.example.org"))
    with pytest.raises(ConflictError, match="no network"):
        allowing(parse_policy("none"), Rule("a.example.org"))
    full = NetworkPolicy(Egress.LIST, tuple(Rule(f"a{each}.example.org") for each in range(MOST_RULES)))
    with pytest.raises(BadRequestError, match="already"):
        allowing(full, Rule("b.example.org"))


def test_allowing_a_service_adds_it_to_the_list() -> None:
    before = parse_policy({"egress": {"allow": ["a.example"]}, "services": ["db:1"]})
    after = allowing_service(before, Service("sandbox", "b", 8000))
    assert after == replace(before, services=("db:1", "sandbox:b:8000"))
    assert allowing_service(after, Service("sandbox", "b", 8000)) is after
    wide = parse_policy({"egress": "deny", "services": ["sandbox:b"]})
    assert allowing_service(wide, Service("sandbox", "b", 8000)) is wide
    with pytest.raises(ConflictError, match="no network"):
        allowing_service(parse_policy("none"), Service("sandbox", "b"))
    full = replace(OPEN, services=tuple(f"db:{each}" for each in range(MOST_NAMES)))
    with pytest.raises(BadRequestError, match="already"):
        allowing_service(full, Service("sandbox", "b"))


@pytest.mark.parametrize(
    "rule",
    [
        Rule("Example.org"),
        Rule("example.org; flush ruleset"),
        Rule("203.0.113.7/24"),
        Rule("203.0.113.7"),
        Rule("example.org", 0),
        Rule("example.org", 443, Protocol.UDP),
        Rule("a/b"),
    ],
)
def test_other_spellings_are_not_normal(rule: Rule) -> None:
    assert not is_normal(NetworkPolicy(Egress.LIST, (rule,)))


def test_lists_and_words_do_not_mix() -> None:
    rules = (Rule("example.org"),)
    assert not is_normal(NetworkPolicy(Egress.DENY, rules))
    assert not is_normal(NetworkPolicy(Egress.ALLOW, rules))
    assert not is_normal(NetworkPolicy(Egress.NONE, deny=rules))


def test_what_was_accepted_once_is_read_again() -> None:
    """Lists of suffixes and of closed networks may grow; a stored sandbox must still wake."""
    assert from_json({"egress": {"allow": ["*.org", "10.0.0.0/8"]}}).allow == (Rule("*.org"), Rule("10.0.0.0/8"))

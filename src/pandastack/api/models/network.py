"""Network policies, the egress log and checks of destinations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import Field, RootModel, WithJsonSchema

from pandastack.api.models.base import Answer, Body, WholeNumber, timestamp_or_none
from pandastack.contract import network as contract
from pandastack.model.network import OPEN, NetworkPolicy
from pandastack.model.network_rules import parse_policy, to_json
from pandastack.services.network.networks import Destination

_WORDS: dict[str, Any] = {"type": "string", "enum": ["allow", "deny", "none"]}
_RULES: dict[str, Any] = {
    "type": "array",
    "items": {"type": "string", "examples": ["*.example.org", "203.0.113.0/24:443/tcp"]},
}
_STRINGS: dict[str, Any] = {"type": "array", "items": {"type": "string"}}
_SERVICES: dict[str, Any] = {"type": "array", "items": {"type": "string", "examples": ["sandbox:ID:8000"]}}
_NUMBER: dict[str, Any] = {"type": "integer", "minimum": 0}
_EGRESS: dict[str, Any] = {
    "anyOf": [
        _WORDS,
        {"type": "object", "properties": {"allow": _RULES, "deny": _RULES}, "additionalProperties": False},
    ]
}
_LIMITS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "kbytes_per_second": _NUMBER,
        "packets_per_second": _NUMBER,
        "connections_per_second": _NUMBER,
    },
    "additionalProperties": False,
}
_POLICY: dict[str, Any] = {
    "type": "object",
    "properties": {"egress": _EGRESS, "services": _SERVICES, "secrets": _STRINGS, "limits": _LIMITS},
    "additionalProperties": False,
}

PolicyText = Annotated[Any, WithJsonSchema({"anyOf": [_WORDS, _POLICY]})]
"""A policy as callers write it: read by :mod:`pandastack.model.network_rules`, whose errors name the field."""


def read_policy(value: object, field: str) -> NetworkPolicy:
    """The policy in a request. Raises :class:`BadRequestError`."""
    return parse_policy(value, field)


class SetNetwork(RootModel[PolicyText]):
    """A policy: a word, or an object."""


class _Policy(Answer):
    egress: Annotated[Any, WithJsonSchema(_EGRESS)] = Field(description="`allow`, `deny`, `none`, or lists of rules")
    services: list[str] = Field(description="What it reaches through the door inward: `sandbox:ID:PORT` and others")
    secrets: list[str]
    limits: Annotated[dict[str, int], WithJsonSchema(_LIMITS)] = Field(description="0: no limit")
    bytes_in: int = Field(description="Bytes received since the server started")
    bytes_out: int = Field(description="Bytes sent since the server started")


class SandboxNetwork(_Policy):
    """The network in a sandbox's record. The bytes are some seconds old."""

    @classmethod
    def of(cls, policy: Mapping[str, Any] | None, traffic: tuple[int, int], *, made: bool = True) -> Self | None:
        """None while the sandbox is not ``made`` and its template decides. Records from before there were policies have
        none, and their sandboxes the default."""
        if policy is None and not made:
            return None
        shown = to_json(OPEN) if policy is None else policy
        return cls(**shown, bytes_in=traffic[0], bytes_out=traffic[1])


class Network(_Policy):
    """The policy in force, and the bytes so far."""

    @classmethod
    def of(cls, state: contract.NetworkState) -> Self:
        return cls(**to_json(state.policy), bytes_in=state.bytes_in, bytes_out=state.bytes_out)


class AllowDestination(Body):
    host: str = Field(
        description="A host name, `*.DOMAIN`, an IPv4 address, a network, or a service such as `sandbox:ID:PORT`",
        examples=["pypi.org"],
    )
    port: WholeNumber | None = Field(None, description="Default: every port")
    protocol: str | None = Field(None, description="`tcp` or `udp`; default: both")

    def wanted(self) -> Destination:
        return Destination(self.host, self.port, self.protocol)


class Allowed(Network):
    """The policy after the change."""

    rule: str = Field(description="The rule for what was to be allowed, or the service")

    @classmethod
    def after(cls, rule: str, state: contract.NetworkState) -> Self:
        return cls(**Network.of(state).model_dump(), rule=rule)


class DestinationChecked(Answer):
    allowed: bool
    rule: str = Field(description="What decides")
    how_to_allow: str = Field(
        description="The rule or service that would allow it; empty if it is allowed, or never can be"
    )
    reason: str


class EgressRecord(Answer):
    seq: int = Field(description="Increases from record to record; pass the last one as `since`")
    time: str | None
    allowed: bool
    via: str = Field(description="`dns`, `tls`, `http`, `tcp`, `udp`, `quic`, `icmp`, `other` or `service`")
    name: str
    address: str
    port: int
    rule: str = Field(description="What decided")
    reason: str
    dropped: int = Field(description="Decisions before this one that were not recorded: there were too many")
    how_to_allow: str = Field(description="The rule that would allow it; empty if it is allowed, or never can be")

    @classmethod
    def of(cls, record: contract.EgressRecord) -> Self:
        return cls(
            seq=record.seq,
            time=timestamp_or_none(record.time),
            allowed=record.allowed,
            via=record.via,
            name=record.name,
            address=record.address,
            port=record.port,
            rule=record.rule,
            reason=record.reason,
            dropped=record.dropped,
            how_to_allow=record.how_to_allow,
        )


class EgressLog(Answer):
    records: list[EgressRecord] = Field(description="At most 1000, oldest first")
    forgotten: bool = Field(description="Whether records between `since` and these are no longer there")

    @classmethod
    def of(cls, found: contract.EgressRecords) -> Self:
        return cls(records=[EgressRecord.of(each) for each in found.records], forgotten=found.forgotten)

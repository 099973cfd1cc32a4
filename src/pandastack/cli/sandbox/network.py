"""``pandastack network``: what a sandbox may reach, and what it wanted to."""

from __future__ import annotations

import json as json_codec
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pandastack.cli.connection import Id, connect
from pandastack.cli.output import Json, note, print_fields, print_json, print_table, printable, result

if TYPE_CHECKING:
    from pandastack.sdk import EgressDecision

group = typer.Typer(no_args_is_help=True, help="See and change what a sandbox may reach.", rich_markup_mode=None)

Word = Literal["allow", "deny", "none"]
Allow = Annotated[
    list[str] | None,
    typer.Option(
        "--allow",
        metavar="RULE",
        help="Allow only what such rules name (repeatable): HOST, *.DOMAIN or "
        "NETWORK/BITS, then :PORT, then /tcp or /udp.",
    ),
]
Deny = Annotated[list[str] | None, typer.Option("--deny", metavar="RULE", help="Deny this in any case (repeatable).")]


Service = Annotated[
    list[str] | None,
    typer.Option(
        "--service",
        metavar="SERVICE",
        help="Let it reach this service of the workspace (repeatable): sandbox:ID, sandbox:ID:PORT, db:ID or app:ID.",
    ),
]


def egress_of(word: str | None, allow: Sequence[str] | None, deny: Sequence[str] | None) -> object:
    """The ``egress`` of a policy by a word or by rules; None for neither. Raises BadParameter for both."""
    lists = {name: list(rules) for name, rules in (("allow", allow), ("deny", deny)) if rules}
    if word is not None and lists:
        raise typer.BadParameter("either a word, or --allow and --deny")
    return word or lists or None


@group.command()
def get(sandbox_id: Id, json: Json = False) -> None:
    """Show the policy of a sandbox, and the bytes that it has received and sent."""
    with connect() as client:
        _show(client.sandboxes.get(sandbox_id).network.get(), json)


@group.command("set")
def set_(
    sandbox_id: Id,
    word: Annotated[
        Word | None,
        typer.Argument(metavar="WORD", help="allow: the public internet; deny: nothing; none: no network at all."),
    ] = None,
    allow: Allow = None,
    deny: Deny = None,
    services: Service = None,
    no_services: Annotated[bool, typer.Option("--no-services", help="Let it reach no service.")] = False,
    kbytes: Annotated[
        int | None, typer.Option("--kbytes-per-second", min=0, help="KiB a second, each way; 0: no limit.")
    ] = None,
    packets: Annotated[
        int | None, typer.Option("--packets-per-second", min=0, help="Packets a second, each way; 0: no limit.")
    ] = None,
    connections: Annotated[
        int | None, typer.Option("--connections-per-second", min=0, help="New connections; 0: no limit.")
    ] = None,
    json: Json = False,
) -> None:
    """Replace what a sandbox may reach, by a word or by rules; what is not given stays.

    It is in force when the command returns. Connections that it forbids are cut.
    """
    egress = egress_of(word, allow, deny)
    given = {
        "kbytes_per_second": kbytes,
        "packets_per_second": packets,
        "connections_per_second": connections,
    }
    limits = {name: value for name, value in given.items() if value is not None}
    if services and no_services:
        raise typer.BadParameter("either --service or --no-services")
    if egress is None and not limits and not services and not no_services:
        raise typer.BadParameter("say allow, deny or none, or give rules, services or limits")
    with connect() as client:
        network = client.sandboxes.get(sandbox_id).network
        policy = {name: value for name, value in network.get().items() if not name.startswith("bytes_")}
        policy["egress"] = policy["egress"] if egress is None else egress
        policy["services"] = services or ([] if no_services else policy["services"])
        policy["limits"] = {**policy["limits"], **limits}
        _show(network.set(policy), json)


@group.command("allow")
def allow_(
    sandbox_id: Id,
    host: Annotated[
        str,
        typer.Argument(metavar="HOST[:PORT]", help="What was denied: a name, address or network, or sandbox:ID:PORT."),
    ],
    json: Json = False,
) -> None:
    """Allow one destination or service more; the rest of the policy stays."""
    with connect() as client:
        done = client.sandboxes.get(sandbox_id).network.allow(host)
    result(done, f"allowed {done['rule']}", as_json=json)


@group.command()
def check(
    sandbox_id: Id,
    destination: Annotated[str, typer.Argument(metavar="HOST:PORT", help="A name or address, and a TCP port.")],
    udp: Annotated[bool, typer.Option("--udp", help="UDP instead of TCP.")] = False,
    json: Json = False,
) -> None:
    """Tell what would be decided about a connection; exit status 1 if it would be denied. Nothing is sent."""
    host, _, port = destination.rpartition(":")
    if not host or not port.isdecimal():
        raise typer.BadParameter(f"{destination!r} is not HOST:PORT", param_hint="HOST:PORT")
    with connect() as client:
        found = client.sandboxes.get(sandbox_id).network.check(host, int(port), "udp" if udp else "tcp")
    if json:
        print_json(found)
    else:
        print_fields({"allowed": "yes" if found["allowed"] else "no", **{k: found[k] for k in ("rule", "reason")}})
        _tell_how(sandbox_id, found["how_to_allow"])
    raise typer.Exit(0 if found["allowed"] else 1)


@group.command()
def log(
    sandbox_id: Id,
    since: Annotated[int, typer.Option("--since", min=0, metavar="SEQ", help="Only records after this one.")] = 0,
    denied: Annotated[bool, typer.Option("--denied", help="Only what was denied.")] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more, until interrupted.")] = False,
    json: Json = False,
) -> None:
    """Show what a sandbox wanted to reach, oldest first. With --follow and --json: one JSON object a line."""
    with connect() as client:
        network = client.sandboxes.get(sandbox_id).network
        if follow:
            for each in network.follow_log(since):
                if not (denied and each.allowed):
                    typer.echo(json_codec.dumps(asdict(each)) if json else printable(" ".join(map(str, _row(each)))))
            return
        found = [each for each in network.log(since) if not (denied and each.allowed)]
    if json:
        print_json([asdict(each) for each in found])
        return
    print_table(("SEQ", "TIME", "DECISION", "VIA", "DESTINATION", "RULE", "REASON"), map(_row, found))


def _row(each: EgressDecision) -> tuple[object, ...]:
    place = each.name if not each.address or each.address == each.name else f"{each.name} {each.address}".strip()
    where = f"{place}:{each.port}" if each.port else place
    return each.seq, each.time, "allowed" if each.allowed else "denied", each.via, where, each.rule, each.reason


def _show(network: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(network)
        return
    egress = network["egress"]
    lists = egress if isinstance(egress, dict) else {}
    limits = {name: value for name, value in network["limits"].items() if value}
    shown = {"egress": "list" if "allow" in lists else "allow" if lists else egress, **lists}
    rest = {name: network[name] for name in ("services", "secrets", "bytes_in", "bytes_out")}
    print_fields({**shown, **rest, "limits": limits})


def _tell_how(sandbox_id: str, rule: str) -> None:
    if rule:
        note(f"hint: pandastack network allow {sandbox_id} {rule}")

"""The networks of sandboxes over the engine's HTTP interface."""

from __future__ import annotations

import ipaddress
from contextlib import aclosing

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pandastack.contract.codec import check_request, encode
from pandastack.contract.fields import Count
from pandastack.contract.network import CheckDestination, DestinationChecked, SetNetwork
from pandastack.egress.decide import decide, decide_service
from pandastack.engine.engine import Engine
from pandastack.engine.http.messages import answer, received
from pandastack.engine.http.streaming import KeepAlive, Write, WrittenResponse
from pandastack.errors import BadRequestError
from pandastack.model.services import is_inward

MOST_RECORDS = 1000
"""Records of an egress log in one answer."""

_KEEP_ALIVE = KeepAlive(b"\n", 15.0)


def network_routes(sandbox: str) -> list[Route]:
    """The routes below ``sandbox`` that deal with its network, and the counters of all."""
    return [
        Route("/traffic", traffic),
        Route(f"{sandbox}/network", get_network, methods=["GET"]),
        Route(f"{sandbox}/network", set_network, methods=["PUT"]),
        Route(f"{sandbox}/network/check", check_destination, methods=["POST"]),
        Route(f"{sandbox}/egress/log", egress_log),
    ]


def _target(request: Request) -> tuple[Engine, str]:
    engine: Engine = request.app.state.engine
    return engine, request.path_params["id"]


async def traffic(request: Request) -> Response:
    engine: Engine = request.app.state.engine
    return answer(await engine.networks.traffic())


async def get_network(request: Request) -> Response:
    engine, sandbox_id = _target(request)
    return answer(await engine.networks.state(sandbox_id))


async def set_network(request: Request) -> Response:
    engine, sandbox_id = _target(request)
    wanted = await received(request, SetNetwork)
    return answer(await engine.networks.change(sandbox_id, wanted.policy))


async def check_destination(request: Request) -> Response:
    """The decision by the function that the resolver, the proxy and the door inward ask. A name is not looked up."""
    engine, sandbox_id = _target(request)
    wanted = await received(request, CheckDestination)
    state = await engine.networks.state(sandbox_id)
    address = wanted.host if _is_address(wanted.host) else None
    if is_inward(wanted.host):
        verdict = decide_service(state.policy, wanted.host, wanted.port)
    else:
        verdict = decide(
            state.policy,
            name=None if address else wanted.host,
            address=address,
            port=wanted.port,
            protocol=wanted.protocol,
            forbidden=engine.network.forbidden,
        )
    return answer(DestinationChecked(verdict.allowed, verdict.rule, verdict.how_to_allow, verdict.reason))


async def egress_log(request: Request) -> Response:
    """The records after ``since``; with ``follow=1`` one message a line, with empty lines as keep-alive."""
    engine, sandbox_id = _target(request)
    engine.registry.get(sandbox_id)
    since = check_request(Count, _number(request.query_params.get("since", "0")), "since")
    if request.query_params.get("follow") != "1":
        return answer(engine.egress_log.since(sandbox_id, since, MOST_RECORDS))

    async def body(write: Write) -> None:
        await write(b"\n")
        async with aclosing(engine.egress_log.follow(sandbox_id, since)) as records:
            async for record in records:
                await write(encode(record) + b"\n")

    return WrittenResponse(body, "application/x-ndjson", _KEEP_ALIVE)


def _is_address(host: str) -> bool:
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        return False
    return True


def _number(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 19:
        raise BadRequestError("since: must be a number", field="since")
    return int(text)

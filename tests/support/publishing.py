"""A server of its own that publishes two events to one receiver, and waits to be killed: ``URL RECEIVER``."""

from __future__ import annotations

import sys
from dataclasses import replace

import anyio

from pandastack.model.forwarded import parse_networks
from pandastack.model.webhooks import Occurrence
from pandastack.services.settings import Networks
from pandastack.services.webhooks.webhooks import NewEndpoint
from tests.cluster.scripted_engine import ScriptedEngine
from tests.support.plane import CALLER, QUICK, WORKSPACE, running


async def publish(url: str, receiver: str) -> None:
    settings = replace(QUICK, webhook_networks=Networks(parse_networks("127.0.0.0/8")))
    async with running(ScriptedEngine(), url, settings) as plane:
        await plane.webhooks.create(CALLER, NewEndpoint(receiver))
        await plane.webhooks.publish(
            *(Occurrence(WORKSPACE, "build.ended", each, {"id": each}) for each in ("one", "two"))
        )
        await anyio.sleep_forever()


if __name__ == "__main__":
    anyio.run(publish, *sys.argv[1:])

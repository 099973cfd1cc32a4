"""What a sandbox reaches through the door inward: against a scripted engine and a real database."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pandastack.errors import BadRequestError, NotFoundError
from pandastack.model.caller import Caller
from pandastack.model.network import Egress, NetworkPolicy
from pandastack.model.services import Service
from pandastack.services import ControlPlane
from pandastack.services.records.service_kinds import Place
from pandastack.store.sandboxes import SandboxRecord
from tests.cluster.scripted_engine import ScriptedEngine
from tests.support.plane import BASE, CALLER, OUTSIDER, add_workspace, running

pytestmark = pytest.mark.anyio


async def create(plane: ControlPlane, *services: str, caller: Caller = CALLER) -> str:
    policy = NetworkPolicy(Egress.DENY, services=services)
    return (await plane.sandboxes.create(caller, replace(BASE, network=policy))).id


async def test_the_way_to_a_port_of_another_sandbox(engine: ScriptedEngine, url: str) -> None:
    async with running(engine, url) as plane:
        metadata = {"port.8000.host": "app.test", "previews": "private"}
        b = (await plane.sandboxes.create(CALLER, replace(BASE, metadata=metadata))).id
        a, wide = await create(plane, f"sandbox:{b}:8000"), await create(plane, f"sandbox:{b}")
        found = plane.previews.inward_route(a, f"sandbox:{b}:8000")
        assert (found.sandbox, found.port, found.running, found.host) == (b, 8000, True, "app.test")
        assert plane.previews.inward_route(wide, f"sandbox:{b}:9").port == 9
        await plane.lifecycle.hibernate(CALLER, b)
        assert not plane.previews.inward_route(a, f"sandbox:{b}:8000").running


async def test_what_is_not_there_for_a_caller_is_all_answered_alike(engine: ScriptedEngine, url: str) -> None:
    async with running(engine, url) as plane:
        await add_workspace(plane, OUTSIDER.workspace)
        b, foreign = await create(plane), await create(plane, caller=OUTSIDER)
        gone = await create(plane)
        a = await create(plane, f"sandbox:{b}:8000", f"sandbox:{gone}", "db:1")
        await plane.sandboxes.delete(CALLER, gone)
        outsider = await create(plane, f"sandbox:{foreign}:8000", caller=OUTSIDER)
        # The engine's word that a policy lists a sandbox of another workspace does not count.
        network = {**(plane.registry.get(a).network or {}), "services": [f"sandbox:{b}:8000", f"sandbox:{foreign}"]}
        c = await create(plane)
        await plane.registry.change(c, network=network)
        assert plane.previews.inward_route(c, f"sandbox:{b}:8000").sandbox == b
        for caller, service in [
            (a, f"sandbox:{b}:8001"),
            (a, f"sandbox:{b}"),
            (a, f"sandbox:{gone}:80"),
            (a, f"sandbox:{foreign}:8000"),
            (a, "db:1"),
            (a, "db:2"),
            (a, "nonsense"),
            (b, f"sandbox:{b}:8000"),
            (c, f"sandbox:{foreign}:8000"),
            (outsider, f"sandbox:{b}:8000"),
            ("unknown", f"sandbox:{b}:8000"),
        ]:
            with pytest.raises(NotFoundError) as refused:
                plane.previews.inward_route(caller, service)
            assert refused.value.message == f"there is no service {service}"


async def test_another_kind_is_one_class(engine: ScriptedEngine, url: str) -> None:
    class Databases:
        def __init__(self, record: SandboxRecord) -> None:
            self.record = record

        def find(self, workspace: str, service: Service) -> Place | None:
            known = (workspace, service.id) == (self.record.workspace, "orders")
            return Place(self.record, 5432) if known else None

    async with running(engine, url) as plane:
        b = await create(plane)
        before = await create(plane, "db:orders")
        with pytest.raises(NotFoundError):
            plane.previews.inward_route(before, "db:orders")
        plane.sandboxes.service_kinds.kinds["db"] = Databases(plane.registry.get(b))
        found = plane.previews.inward_route(before, "db:orders")
        assert (found.sandbox, found.port) == (b, 5432)
        with pytest.raises(BadRequestError, match="there is no db:other in this workspace") as refused:
            await create(plane, "db:orders", "db:other")
        assert refused.value.field == "network.services[1]"

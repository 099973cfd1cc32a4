"""Machines made ahead have run a first command, which no sandbox can see, and what their template rehearses."""

from __future__ import annotations

import time
from dataclasses import replace

import anyio
import pytest
from anyio.lowlevel import checkpoint

from pandastack.engine.engine import Engine, open_engine
from pandastack.engine.machines.sandbox import Sandbox
from pandastack.engine.origins.origin import Origin
from pandastack.engine.settings import Settings
from pandastack.host import facts
from pandastack.model.accelerator import Accelerator
from tests.support.installation import Installation, eventually
from tests.support.machines import run, spec

pytestmark = pytest.mark.anyio

DRAWN = "head -c 16 /dev/urandom | od -An -tx1; cat /proc/sys/kernel/random/uuid"


async def rehearsed(engine: Engine, template: Origin) -> None:
    """Wait until a machine has rehearsed ``template``."""

    def waits() -> bool:
        return any(each.template == template for kind in engine.warm_pool.waiting()[::2] for each in kind)

    engine.warm_pool.replenish(template)
    await anyio.to_thread.run_sync(eventually, waits, 60, "a machine has rehearsed")


async def create(engine: Engine) -> Sandbox:
    sandbox = await engine.sandboxes.create(spec(), "base")
    assert "resume" in sandbox.phases, "it was made ahead"
    return sandbox


async def test_a_first_command_leaves_nothing_behind(place: Installation) -> None:
    async with open_engine(place.layout, Settings(ready_machines=1)) as engine:
        await rehearsed(engine, engine.templates.get("base"))
        first = await create(engine)
        await rehearsed(engine, engine.templates.get("base"))
        second = await create(engine)
        for sandbox in (first, second):
            records, retention = await sandbox.channel.processes()
            assert (records, retention.forgotten) == ([], 0)
            assert await run(sandbox, "ls -A /tmp /workspace /root/.bash_history 2>/dev/null | grep -v :") == ""
            assert abs(float(await run(sandbox, "date +%s.%N")) - time.time()) < 5
        assert await run(first, DRAWN) != await run(second, DRAWN)
        assert engine.rehearsals.report() == "ok"


async def test_a_template_rehearses_commands_of_its_own(place: Installation) -> None:
    async with open_engine(place.layout, Settings(ready_machines=1)) as engine:
        base = engine.templates.get("base")
        commands = ("echo $WORD > /run/rehearsed", "exit 3", "echo after >> /run/rehearsed")
        env = {**base.template.env, "WORD": "before"}
        mine = replace(base, template=replace(base.template, rehearse=commands, env=env))
        await rehearsed(engine, mine)
        assert engine.rehearsals.report() == "1 failed in base"
        sandbox = await create(engine)
        assert await run(sandbox, "cat /run/rehearsed") == "before\nafter"


async def test_a_rehearsal_that_hangs_is_ended(place: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pandastack.engine.machines.rehearsal.REHEARSAL_DEADLINE", 5.0)
    async with open_engine(place.layout, Settings(ready_machines=1)) as engine:
        base = engine.templates.get("base")
        mine = replace(base, template=replace(base.template, owner="acme", rehearse=("sleep 1000", "true")))
        await rehearsed(engine, mine)
        assert engine.rehearsals.report() == "2 failed in templates of workspaces", "everybody may read the health"
        sandbox = await create(engine)
        assert await run(sandbox, "pgrep -x sleep || echo none") == "none"


async def test_emulated_programs_find_their_translations_again(place: Installation) -> None:
    async with open_engine(place.layout, Settings(ready_machines=0)) as engine:
        sandbox = await engine.sandboxes.create(spec(), "base")
        maps = [await run(sandbox, "cut -d' ' -f1 /proc/self/maps") for _ in range(2)]
        emulated = engine.templates.weakest_accelerator() is Accelerator.TCG
        assert (maps[0] == maps[1]) is emulated


async def test_creates_wait_for_their_turn_and_may_stop_waiting(
    place: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facts, "cores", lambda: 1)
    async with open_engine(place.layout, Settings(ready_machines=0)) as engine:
        begun: list[str] = []
        specs = [spec() for _ in range(3)]
        scopes = [anyio.CancelScope() for _ in specs]

        async def one(number: int) -> None:
            with scopes[number]:
                begun.append((await engine.sandboxes.create(specs[number], "base")).id)

        async with anyio.create_task_group() as tasks:
            for number in range(3):
                tasks.start_soon(one, number)
            while len(list(engine.pool.machines.iterdir())) == 0:
                await checkpoint()
            scopes[1].cancel()  # it waits
            scopes[0].cancel()  # it has a machine already, so it is carried out
        assert begun == [specs[0].sandbox, specs[2].sandbox]
        assert len(engine.registry.list()) == len(list(engine.pool.machines.iterdir())) == 2

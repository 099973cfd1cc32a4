"""SSH keys over HTTP, and the gateway's questions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import asyncssh
import httpx
import pytest

from pandastack.api.internal.app import create_internal_app
from pandastack.errors import ConflictError, NotFoundError, UnavailableError
from pandastack.gateway.control import Control
from pandastack.gateway.ssh.authority import ControlAuthority
from pandastack.services import ControlPlane
from pandastack.services.ssh.ssh import Door
from tests.cluster.scripted_engine import ScriptedEngine
from tests.store.migrated import migrated_database
from tests.support.plane import BASE, CALLER, OUTSIDER, running

pytestmark = pytest.mark.anyio


@pytest.fixture
def url(tmp_path: Path) -> str:
    return migrated_database(tmp_path)


@pytest.fixture
async def plane(url: str) -> AsyncIterator[ControlPlane]:
    async with running(ScriptedEngine(), url) as plane:
        yield plane


def new_key() -> asyncssh.SSHKey:
    return asyncssh.generate_private_key("ssh-ed25519", comment="mine")


async def test_a_key_opens_the_sandboxes_of_its_workspace_until_it_is_deleted(plane: ControlPlane) -> None:
    key = new_key()
    sandbox = await plane.sandboxes.create(CALLER, BASE)
    assert not await plane.ssh.allows(sandbox.id, key.get_fingerprint())
    record = await plane.ssh.add(CALLER, key.export_public_key().decode(), None)
    assert (record.name, record.last_used_at) == ("mine", None)
    assert await plane.ssh.allows(sandbox.id, key.get_fingerprint())
    assert not await plane.ssh.allows("unknown", key.get_fingerprint())
    assert (await plane.ssh.list(CALLER))[0].last_used_at is not None
    await plane.ssh.delete(CALLER, record.id)
    assert not await plane.ssh.allows(sandbox.id, key.get_fingerprint())
    assert await plane.ssh.list(CALLER) == []


async def test_keys_of_others_are_neither_seen_nor_deleted(plane: ControlPlane) -> None:
    record = await plane.ssh.add(CALLER, new_key().export_public_key().decode(), "a")
    assert await plane.ssh.list(OUTSIDER) == []
    with pytest.raises(NotFoundError):
        await plane.ssh.delete(OUTSIDER, record.id)


async def test_a_key_is_added_once(plane: ControlPlane) -> None:
    text = new_key().export_public_key().decode()
    await plane.ssh.add(CALLER, text, "a")
    with pytest.raises(ConflictError) as caught:
        await plane.ssh.add(CALLER, text, "b")
    assert caught.value.field == "public_key"


async def test_the_door_is_known_once_the_gateway_has_said_so(plane: ControlPlane) -> None:
    with pytest.raises(UnavailableError):
        _ = plane.ssh.door
    plane.ssh.announced(Door(2222, "ssh-ed25519 AAAA"))
    assert plane.ssh.door.port == 2222


async def test_the_gateway_asks_and_announces(plane: ControlPlane) -> None:
    key, internal = new_key(), create_internal_app()
    internal.state.plane = plane
    sandbox = await plane.sandboxes.create(CALLER, BASE)
    record = await plane.ssh.add(CALLER, key.export_public_key().decode(), None)
    transport = httpx.ASGITransport(app=internal)
    async with Control(
        httpx.AsyncClient(transport=transport, base_url="http://control"), Path("control.sock")
    ) as control:
        authority = ControlAuthority(control)
        assert await authority.allows(sandbox.id, key.get_fingerprint())
        assert not await authority.allows(sandbox.id, "SHA256:other")
        valid, foreign, gone = (sandbox.id, key.get_fingerprint()), (sandbox.id, "SHA256:other"), ("gone", "SHA256:x")
        assert await authority.revoked([valid, foreign, gone]) == {foreign, gone}
        assert await authority.revoked([]) == set()
        await plane.ssh.delete(CALLER, record.id)
        assert await authority.revoked([valid]) == {valid}
        await authority.announce(2222, "ssh-ed25519 AAAA")
    assert plane.ssh.door == Door(2222, "ssh-ed25519 AAAA")

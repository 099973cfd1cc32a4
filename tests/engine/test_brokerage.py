"""Which secrets a sandbox has, on the engine's side, with a broker's process."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest

from pandastack.broker import BrokerClient, Use, open_broker
from pandastack.contract.events import SecretUsed
from pandastack.contract.network import SecretBinding, SetSecrets
from pandastack.engine.machines.sandbox import Hibernated, Sandbox
from pandastack.engine.sandboxes.brokerage import Brokerage
from pandastack.engine.sandboxes.events import Events
from pandastack.engine.sandboxes.registry import Registry
from pandastack.engine.spec import SandboxSpec
from pandastack.errors import ConflictError, UnavailableError
from pandastack.model.secrets import new_placeholder

pytestmark = pytest.mark.anyio

ID, CHILD = "00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"
VALUE = "real-value-0123456789"
BINDING = SecretBinding("KEY", new_placeholder(), VALUE, ("api.example.org",))
SECRETS = SetSecrets((BINDING,), {"KEY": BINDING.placeholder, "PLAIN": "plain-value"})


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[BrokerClient]:
    async with open_broker(tmp_path / "broker", None, lambda _: None) as broker:
        yield broker


@pytest.fixture
def registry() -> Registry:
    return Registry(Events(), cast(Any, None))


def brokerage(
    tmp_path: Path, broker: BrokerClient | None, registry: Registry, events: Events | None = None
) -> Brokerage:
    return Brokerage(tmp_path / "secrets", broker, registry, events or Events())


def env_of(brokerage: Brokerage, sandbox_id: str = ID, **env: str) -> dict[str, str]:
    return dict(brokerage.env_of(cast(Sandbox, SimpleNamespace(id=sandbox_id, spec=SandboxSpec(sandbox_id, "x", env)))))


async def test_commands_find_placeholders_and_who_to_trust(
    tmp_path: Path, broker: BrokerClient, registry: Registry
) -> None:
    held = brokerage(tmp_path, broker, registry)
    assert env_of(held) == {}
    held.remember(ID, SECRETS)
    env = env_of(held, GIT_SSL_CAINFO="/own")
    assert env["KEY"] == BINDING.placeholder and env["PLAIN"] == "plain-value"
    assert env["NODE_EXTRA_CA_CERTS"].endswith(".crt") and "GIT_SSL_CAINFO" not in env
    held.remember(ID, SetSecrets(env={"PLAIN": "x"}))
    assert env_of(held) == {"PLAIN": "x"}


async def test_hosts_are_stored_and_values_are_not(tmp_path: Path, broker: BrokerClient, registry: Registry) -> None:
    held = brokerage(tmp_path, broker, registry)
    held.remember(ID, SECRETS)
    assert await held.plug(ID, "slot") == ("api.example.org",)
    for path in tmp_path.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert VALUE.encode() not in content and b"plain-value" not in content
    successor = brokerage(tmp_path, broker, registry)
    assert successor.hosts_of(ID) == ("api.example.org",)
    assert "KEY" not in env_of(successor)
    successor.sweep(set())
    assert successor.hosts_of(ID) == ()
    assert list((tmp_path / "secrets").iterdir()) == []


async def test_a_damaged_file_is_no_reason_not_to_start(
    tmp_path: Path, broker: BrokerClient, registry: Registry
) -> None:
    brokerage(tmp_path, broker, registry)
    (tmp_path / "secrets" / ID).write_text("{")
    assert brokerage(tmp_path, broker, registry).hosts_of(ID) == ()


async def test_children_inherit_and_the_deleted_are_forgotten(
    tmp_path: Path, broker: BrokerClient, registry: Registry
) -> None:
    held = brokerage(tmp_path, broker, registry)
    held.remember(ID, SECRETS)
    held.inherit(ID, [CHILD])
    assert env_of(held, CHILD)["KEY"] == BINDING.placeholder
    held.forget(ID)
    assert env_of(held) == {} and held.hosts_of(CHILD) == ("api.example.org",)
    assert json.loads((tmp_path / "secrets" / CHILD).read_bytes()) == {"hosts": ["api.example.org"]}


async def test_a_failed_create_leaves_nothing(tmp_path: Path, broker: BrokerClient, registry: Registry) -> None:
    held = brokerage(tmp_path, broker, registry)
    with pytest.raises(ConflictError):
        async with held.beginning(ID, SECRETS):
            assert held.hosts_of(ID) == ("api.example.org",)
            raise ConflictError("no")
    assert held.hosts_of(ID) == () and env_of(held) == {}


async def test_without_a_broker_nothing_is_bound(tmp_path: Path, registry: Registry) -> None:
    held = brokerage(tmp_path, None, registry)
    held.remember(ID, SetSecrets(env={"PLAIN": "x"}))
    with pytest.raises(UnavailableError, match="no secret broker"):
        held.remember(ID, SECRETS)


def live(sandbox_id: str, channel: Any = None, *, paused: bool = False) -> Sandbox:
    made = SimpleNamespace(
        id=sandbox_id,
        spec=SandboxSpec(sandbox_id, "x"),
        failure=None,
        paused=paused,
        lock=anyio.Lock(),
        channel=channel,
    )
    return cast(Sandbox, made)


async def test_a_live_change_intercepts_before_the_guest_has_the_placeholder(
    tmp_path: Path, broker: BrokerClient, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []

    async def install(channel: object, certificate: str) -> None:
        assert certificate == broker.ca_pem and "KEY" not in env_of(held)
        order.append("trust")

    async def intercept(sandbox: Sandbox, hosts: Sequence[str]) -> None:
        assert tuple(hosts) == ("api.example.org",) and "KEY" not in env_of(held)
        order.append("intercept")

    monkeypatch.setattr("pandastack.engine.sandboxes.brokerage.install_authority", install)
    held = Brokerage(tmp_path / "secrets", broker, registry, Events(), intercept)
    registry.register(live(ID))
    assert await held.plug(ID, "slot") == ()
    await held.set(ID, SECRETS)
    assert order == ["trust", "intercept"] and env_of(held)["KEY"] == BINDING.placeholder


async def test_a_sandbox_without_a_slot_cannot_have_bound_secrets(
    tmp_path: Path, broker: BrokerClient, registry: Registry
) -> None:
    held = brokerage(tmp_path, broker, registry)
    registry.register(live(ID))
    await held.set(ID, SetSecrets(env={"PLAIN": "x"}))
    with pytest.raises(ConflictError, match="no network"):
        await held.set(ID, SECRETS)
    assert "KEY" not in env_of(held)


async def test_a_paused_one_is_refused_new_hosts_only(tmp_path: Path, broker: BrokerClient, registry: Registry) -> None:
    held = brokerage(tmp_path, broker, registry)
    registry.register(live(ID, paused=True))
    with pytest.raises(ConflictError, match="paused"):
        await held.set(ID, SECRETS)
    held.remember(ID, SECRETS)
    await held.plug(ID, "slot")
    await held.set(ID, SECRETS)


async def test_a_sleeping_one_is_not_woken(tmp_path: Path, broker: BrokerClient, registry: Registry) -> None:
    held = brokerage(tmp_path, broker, registry)
    registry.register(Hibernated(SandboxSpec(ID, "x"), cast(Any, None)))
    await held.set(ID, SECRETS)
    assert held.hosts_of(ID) == ("api.example.org",)


async def test_uses_of_known_sandboxes_are_published(tmp_path: Path, broker: BrokerClient, registry: Registry) -> None:
    events = Events()
    held = brokerage(tmp_path, broker, registry, events)
    registry.register(live(ID))
    async with events.subscribe() as seen:
        for sandbox_id in (CHILD, ID):
            held.used(Use(1.0, "slot", sandbox_id, "KEY", "api.example.org", "GET", "/x"))
        assert await seen.receive() == SecretUsed(ID, "KEY", "api.example.org", "GET", "/x")

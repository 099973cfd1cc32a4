"""Secrets of a workspace: against a scripted engine and a real database."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import anyio
import pytest

from pandastack.contract.events import SecretUsed
from pandastack.contract.network import SecretBinding
from pandastack.errors import BadRequestError, ConflictError, NotFoundError, ServerError
from pandastack.model.network import NetworkPolicy
from pandastack.model.secrets import is_placeholder
from pandastack.services.records.spec import NewSandbox
from pandastack.services.secrets.keys import Sealed, SecretKeys, key_file
from pandastack.services.secrets.secrets import split_metadata
from pandastack.services.secrets.spec import LONGEST_VALUE, NewSecret, checked_hosts, checked_name, checked_value
from tests.cluster.scripted_engine import ScriptedEngine
from tests.support.plane import BASE, CALLER, OUTSIDER, running

pytestmark = pytest.mark.anyio

VALUE = "real-value-0123456789"
BOUND = NewSecret("KEY", VALUE, ("API.Example.org.", "*.example.net"))
PLAIN = NewSecret("TOKEN", "plain-value")


def database(url: str) -> Path:
    return Path(url.partition(":///")[2])


async def test_a_secret_is_stored_encrypted_and_listed_without_its_value(engine: ScriptedEngine, url: str) -> None:
    async with running(engine, url) as plane:
        record = await plane.secrets.create(CALLER, BOUND)
        assert record.hosts == ("*.example.net", "api.example.org")
        assert is_placeholder(record.placeholder)
        assert plane.secrets.value(record) == VALUE
        assert await plane.secrets.list(CALLER) == [record]
        assert await plane.secrets.list(OUTSIDER) == []
        assert VALUE not in repr(record)
        with pytest.raises(ConflictError, match="KEY exists"):
            await plane.secrets.create(CALLER, BOUND)
        with pytest.raises(NotFoundError):
            await plane.secrets.get(OUTSIDER, "KEY")
    for path in database(url).parent.iterdir():
        assert VALUE.encode() not in path.read_bytes()
    assert database(url).with_name("secrets.key").stat().st_mode & 0o777 == 0o600


async def test_it_is_there_after_a_restart(engine: ScriptedEngine, url: str) -> None:
    async with running(engine, url) as plane:
        await plane.secrets.create(CALLER, BOUND)
    async with running(engine, url) as plane:
        assert plane.secrets.value(await plane.secrets.get(CALLER, "KEY")) == VALUE


async def test_granted_secrets_are_placeholders_or_variables(engine: ScriptedEngine, url: str) -> None:
    async with running(engine, url) as plane:
        bound = await plane.secrets.create(CALLER, BOUND)
        await plane.secrets.create(CALLER, PLAIN)
        granted = await plane.secrets.granted(CALLER.workspace, ["TOKEN", "KEY", "KEY"])
        assert granted.env == {"TOKEN": "plain-value", "KEY": bound.placeholder}
        assert granted.bindings == (SecretBinding("KEY", bound.placeholder, VALUE, bound.hosts),)
        assert VALUE not in repr(granted) and "plain-value" not in repr(granted)
        with pytest.raises(BadRequestError, match="unknown secret 'OTHER'") as refused:
            await plane.secrets.granted(CALLER.workspace, ["OTHER"])
        assert refused.value.field == "network.secrets"
        assert (await plane.secrets.granted(CALLER.workspace, ["OTHER"], missing=True)).env == {}


async def test_a_change_keeps_the_placeholder(engine: ScriptedEngine, url: str) -> None:
    async with running(engine, url) as plane:
        former = await plane.secrets.create(CALLER, BOUND)
        changed = await plane.secrets.change(CALLER, "KEY", "another-value", ["a.example.com"])
        assert changed.placeholder == former.placeholder and changed.hosts == ("a.example.com",)
        stored = await plane.secrets.get(CALLER, "KEY")
        assert plane.secrets.value(stored) == "another-value" and stored == changed
        with pytest.raises(BadRequestError, match="stays bound"):
            await plane.secrets.change(CALLER, "KEY", None, [])
        with pytest.raises(NotFoundError):
            await plane.secrets.change(OUTSIDER, "KEY", "another-value", None)


async def test_rotation_encrypts_everything_anew(engine: ScriptedEngine, url: str) -> None:
    async with running(engine, url) as plane:
        former = [await plane.secrets.create(CALLER, each) for each in (BOUND, PLAIN)]
        keys = key_file("", url)
        assert keys is not None
        before = keys.read_text()
        assert await plane.secrets.rotate_key() == 2
        after = await plane.secrets.list(CALLER)
        assert not {each.key_id for each in former} & {each.key_id for each in after}
        assert [plane.secrets.value(each) for each in after] == [VALUE, "plain-value"]
        assert keys.read_text() != before
        with pytest.raises(ServerError, match="not in the key file"):
            plane.secrets.value(former[0])


@dataclass(frozen=True, slots=True)
class Asking(NewSandbox):
    """A create with a network policy."""

    network: NetworkPolicy | None = None


async def test_metadata_of_secrets_is_stored_encrypted_and_inherited(engine: ScriptedEngine, url: str) -> None:
    wanted = replace(BASE, metadata={"a": "b", "secret.deep.key": VALUE})
    async with running(engine, url) as plane:
        record = await plane.sandboxes.create(CALLER, wanted)
        assert record.metadata == {"a": "b", "workspace": CALLER.workspace}
        assert await plane.secrets.metadata(CALLER.workspace, record.id) == {"deep.key": VALUE}
        forked = await plane.forks.fork(CALLER, record.id, {"secret.other": "x"})
        child = forked.children[0].id
        assert await plane.secrets.metadata(CALLER.workspace, child) == {"deep.key": VALUE, "other": "x"}
        await plane.sandboxes.delete(CALLER, record.id)
        assert await plane.secrets.metadata(CALLER.workspace, record.id) == {}
        assert await plane.secrets.list(CALLER) == []
    assert VALUE.encode() not in database(url).read_bytes()


async def test_a_use_is_logged_without_its_query(engine: ScriptedEngine, url: str) -> None:
    async with running(engine, url) as plane:
        record = await plane.sandboxes.create(CALLER, BASE)
        await engine.announce(SecretUsed(record.id, "KEY", "api.example.org", "GET", "/v1/x"))
        await engine.announce(SecretUsed(record.id, "KEY", "api.example.org", "GET", "/v1/x", "in the path"))
        seen = []
        async for event in plane.events.follow(record.id, None, lambda: True):
            seen += [(event.type, dict(event.payload))] if event.type.startswith("secret.") else []
            if len(seen) == 2:
                break
        entry = {"secret": "KEY", "host": "api.example.org", "method": "GET", "path": "/v1/x"}
        assert seen == [("secret.used", entry), ("secret.refused", {**entry, "reason": "in the path"})]


@pytest.mark.parametrize("name", ["", "1A", "A B", "A-B", "A=", "ä", "A" * 129])
def test_names_are_those_of_variables(name: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        checked_name(name)
    assert refused.value.field == "name"


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("203.0.113.7", "address"),
        ("203.0.113.7:443", "address"),
        ("[2001:db8::1]", "address"),
        ("2001:db8::1", "address"),
        ("0x7f.1", "address"),
        ("localhost", "not a host name"),
        ("", "not a host name"),
        ("*.", "not a host name"),
        ("a..example.org", "not a host name"),
        ("https://example.org", "not a host name"),
        ("example.org/x", "not a host name"),
        ("example.org:443", "not a host name"),
        ("a.*.example.org", "not a host name"),
        ("-a.example.org", "not a host name"),
        ("a" * 64 + ".example.org", "not a host name"),
        (".".join(["abcdefg"] * 40), "not a host name"),
        ("*.com", "unrelated"),
        ("*.co.uk", "unrelated"),
    ],
)
def test_bad_hosts(host: str, shown: str) -> None:
    with pytest.raises(BadRequestError, match=shown) as refused:
        checked_hosts([host])
    assert refused.value.field == "hosts"


def test_hosts_have_one_spelling() -> None:
    assert checked_hosts(["Bücher.example.", "API.example.org", "*.example.org", "api.example.org"]) == (
        "*.example.org",
        "api.example.org",
        "xn--bcher-kva.example",
    )


@pytest.mark.parametrize("value", ["", "\0" * 9, "x" * (LONGEST_VALUE + 1), "\ud800aaaaaaaaa"])
def test_values_of_any_secret(value: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        checked_value(value, bound=False)
    assert refused.value.field == "value"


@pytest.mark.parametrize("value", ["short", "two\nlines-of-it", "a\rb-0123456"])
def test_values_of_bound_secrets(value: str) -> None:
    assert checked_value(value, bound=False) == value
    with pytest.raises(BadRequestError):
        checked_value(value, bound=True)


def test_a_sealed_value_belongs_to_its_row(tmp_path: Path) -> None:
    keys = SecretKeys(tmp_path / "keys")
    sealed = keys.seal(VALUE, "default//KEY")
    assert SecretKeys(tmp_path / "keys").open(sealed, "default//KEY") == VALUE
    with pytest.raises(ServerError, match="cannot be decrypted"):
        keys.open(sealed, "other//KEY")
    with pytest.raises(ServerError, match="cannot be decrypted"):
        keys.open(Sealed(sealed.key_id, sealed.data[:-1] + bytes([sealed.data[-1] ^ 1])), "default//KEY")


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"current": "a", "keys": {}}', '{"current": "a", "keys": {"a": "eA=="}}']
)
def test_a_damaged_key_file_stops_the_start(tmp_path: Path, content: str) -> None:
    path = tmp_path / "keys"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(ServerError, match="key file"):
        SecretKeys(path)


def test_a_key_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("{}")
    path.chmod(0o640)
    with pytest.raises(ServerError, match="other users"):
        SecretKeys(path)


def test_without_a_place_for_keys_nothing_is_stored() -> None:
    assert key_file("", "postgresql://host/db") is None
    with pytest.raises(BadRequestError, match="no key file"):
        SecretKeys(None).seal("x", "y")


def test_metadata_is_split() -> None:
    assert split_metadata({"a": "1", "secret.b": "2", "secrets": "3"}) == ({"a": "1", "secrets": "3"}, {"b": "2"})
    with pytest.raises(BadRequestError):
        split_metadata({"secret." + "x" * 257: "1"})


async def test_a_create_gets_the_secrets_that_its_template_names(engine: ScriptedEngine, url: str) -> None:
    engine.template_policy = NetworkPolicy(secrets=("KEY",))
    async with running(engine, url) as plane:
        with pytest.raises(BadRequestError, match="unknown secret 'KEY', which the template") as refused:
            await plane.sandboxes.create(CALLER, Asking("base"))
        assert refused.value.field == "network.secrets" and "POST /v1/secrets" in str(refused.value.hint)
        assert (plane.sandboxes.list(CALLER), engine.machines, engine.secrets) == ([], {}, {})
        bound = await plane.secrets.create(CALLER, BOUND)
        record = await plane.sandboxes.create(CALLER, Asking("base"))
        assert engine.secrets[record.id].env == {"KEY": bound.placeholder}
        assert record.network is not None and record.network["secrets"] == ["KEY"]
        own = await plane.sandboxes.create(CALLER, Asking("base", network=NetworkPolicy()))
        assert own.id not in engine.secrets, "a policy in the request replaces the template's"


async def test_a_create_that_names_secrets_gets_them(engine: ScriptedEngine, url: str) -> None:
    async with running(engine, url) as plane:
        bound = await plane.secrets.create(CALLER, BOUND)
        record = await plane.sandboxes.create(CALLER, Asking("base", network=NetworkPolicy(secrets=("KEY",))))
        assert engine.secrets[record.id].env == {"KEY": bound.placeholder}
        with pytest.raises(BadRequestError, match="unknown secret"):
            await plane.sandboxes.create(CALLER, Asking("base", network=NetworkPolicy(secrets=("OTHER",))))
        assert [each.id for each in plane.sandboxes.list(CALLER)] == [record.id]
        await plane.secrets.change(CALLER, "KEY", "another-value", None)
        await plane.grants.send(record, ("KEY",))
        assert engine.secrets[record.id].bindings[0].value == "another-value"
        with anyio.fail_after(30):
            await plane.grants.send(record, ())
        assert engine.secrets[record.id].bindings == ()

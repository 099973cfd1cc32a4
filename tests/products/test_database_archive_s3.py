"""Archives in a store that speaks S3: moto's server on the loopback."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from pandastack.errors import ServerError
from pandastack.products.databases.archive import archive as archives
from pandastack.products.databases.archive.archive import Archive, Description
from pandastack.products.databases.archive.replication import Identity
from pandastack.products.databases.archive.s3 import S3Target, open_s3
from pandastack.products.databases.archive.wal import SEGMENT, segment_name

moto = pytest.importorskip("moto.server")
boto3: Any = pytest.importorskip("boto3")

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def target(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> S3Target:
    given = {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ENDPOINT_URL_S3": endpoint,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    boto3.client("s3").create_bucket(Bucket="backups")
    target = open_s3("s3://backups/here/")
    target.delete_all("")
    return target


def test_things_come_and_go(target: S3Target, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 100)
    target.put("one/0001/wal/a.gz", tmp_path / "file")
    target.put_bytes("one/archive.json", b"{}")
    target.put_bytes("another/archive.json", b"{}")
    assert target.sizes("one") == {"one/0001/wal/a.gz": 100, "one/archive.json": 2}
    with target.open("one/0001/wal/a.gz") as file:
        assert file.read(60) + file.read(60) == b"x" * 100
    with pytest.raises(FileNotFoundError):
        target.open("one/nothing")
    target.delete("one/archive.json")
    target.delete("one/archive.json")
    target.delete_all("one")
    assert target.sizes("") == {"another/archive.json": 2}
    with pytest.raises(ServerError, match="database backups"):
        open_s3("s3://nowhere/x").put_bytes("a", b"")


async def test_another_host_finds_all_of_it(target: S3Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "_SHARE_SECONDS", 0.0)
    archive = Archive(target, tmp_path / "pending", "one")
    await archive.describe(Description("one", "default", "orders", "1g"))
    segments, begins = await archive.go_on(Identity("7", 1, SEGMENT + 9), anew=False)
    assert begins and segments.position == SEGMENT
    await anyio.to_thread.run_sync(segments.write, [b"a" * SEGMENT, b"b" * 10])
    await archive.collect(segments)
    await archive.share(segments)
    epoch = archive.epochs[0]
    elsewhere = Archive(target, tmp_path / "elsewhere", "one")
    await elsewhere.load()
    assert elsewhere.epochs == archive.epochs and list(epoch.segments) == [segment_name(1, SEGMENT)]
    assert (await elsewhere.description()) == Description("one", "default", "orders", "1g")

    async def read(position: int) -> bytes | None:
        found = await elsewhere.segment(epoch, segment_name(1, position))
        return None if found is None else gzip.decompress(found)

    assert await read(SEGMENT) == b"a" * SEGMENT
    assert await read(2 * SEGMENT) == (b"b" * 10).ljust(SEGMENT, b"\0")
    assert await read(3 * SEGMENT) is None
    await anyio.to_thread.run_sync(segments.write, [b"c" * (SEGMENT - 10)])
    await archive.collect(segments)
    assert await read(2 * SEGMENT) == b"b" * 10 + b"c" * (SEGMENT - 10)
    assert not any("partial" in name for name in target.sizes("one"))
    segments.close()
    await archive.remove()
    assert target.sizes("one") == {}

"""Messages about volumes: what a hostile or mistaken sender may not ask for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pandastack.contract.codec import decode_request
from pandastack.contract.sandboxes import CreateSandbox
from pandastack.contract.volumes import MOST, PATH_BYTES, CreateVolume, MountRef, VolumeRef, are_apart, is_mount_path
from pandastack.errors import BadRequestError

ID = "01234567-89ab-cdef-0123-456789abcdef"


def _create(volumes: Any) -> CreateSandbox:
    template = {"kind": "template", "name": "base"}
    return decode_request(
        CreateSandbox, json.dumps({"spec": {"id": ID}, "start_from": template, "volumes": volumes}).encode()
    )


@pytest.mark.parametrize("path", ["/mnt/data", "/srv", "/a b", "/ä", "/" + "x" * (PATH_BYTES - 1)])
def test_mount_paths(path: str) -> None:
    assert is_mount_path(path)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "mnt",
        "./mnt",
        "/mnt/",
        "//mnt",
        "/mnt/../etc",
        "/mnt/.",
        "/a\n",
        "/a\0",
        "/" + "x" * PATH_BYTES,
        "/\ud800",
    ],
)
def test_what_is_not_a_mount_path(path: str) -> None:
    assert not is_mount_path(path)


def test_paths_that_are_apart() -> None:
    assert are_apart(["/mnt/a", "/mnt/ab", "/srv"])
    assert not are_apart(["/mnt/a", "/mnt/a"])
    assert not are_apart(["/mnt/a/b", "/mnt/a"])
    assert not are_apart(["/mnt/a", "/mnt/a/b"])


def test_volumes_of_a_create() -> None:
    made = _create([{"volume": ID, "path": "/mnt/data"}])
    assert [(each.volume, each.path, each.read_only) for each in made.volumes] == [(ID, "/mnt/data", False)]
    assert _create([]).volumes == ()


@pytest.mark.parametrize(
    ("volumes", "field"),
    [
        ([{"volume": "../../etc", "path": "/mnt/a"}], r"volumes\[0\]\.volume"),
        ([{"volume": ID, "path": "mnt"}], r"volumes\[0\]\.path"),
        ([{"volume": ID, "path": "/mnt/a", "read_only": 1}], r"volumes\[0\]\.read_only"),
        ([{"volume": ID, "path": "/mnt/a"}, {"volume": ID, "path": "/mnt/b"}], "volumes"),
        ([{"volume": ID, "path": "/a"}, {"volume": ID.replace("f", "e"), "path": "/a/b"}], "volumes"),
        ([{"volume": f"{ID[:-2]}{n:02}", "path": f"/mnt/{n}"} for n in range(MOST + 1)], "volumes"),
    ],
)
def test_volumes_that_a_create_refuses(volumes: Any, field: str) -> None:
    with pytest.raises(BadRequestError, match=field):
        _create(volumes)


def test_sources_of_a_volume() -> None:
    def source(value: Any) -> Any:
        body = {"volume": ID, "size_mb": 64, "start_from": value}
        return decode_request(CreateVolume, json.dumps(body).encode()).start_from

    assert source(None) is None
    assert source({"kind": "volume", "id": ID}) == VolumeRef(ID)
    assert source({"kind": "mount", "sandbox": ID, "path": "/mnt/a"}) == MountRef(ID, "/mnt/a")
    for wrong in ({"kind": "volume"}, {"kind": "mount", "sandbox": ID}, {"kind": "sandbox", "id": ID}):
        with pytest.raises(BadRequestError, match="start_from"):
            source(wrong)


@pytest.mark.parametrize("size", [0, -1, 1 << 40, 1.5, "64"])
def test_sizes_of_a_volume(size: Any) -> None:
    with pytest.raises(BadRequestError, match="size_mb"):
        decode_request(CreateVolume, json.dumps({"volume": ID, "size_mb": size}).encode())

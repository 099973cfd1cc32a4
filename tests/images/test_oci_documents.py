"""Manifests and configurations that strangers wrote, read strictly."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from pandastack.errors import BuildError
from pandastack.images.oci.config import SETTINGS_MAX, read_config
from pandastack.images.oci.documents import DOCUMENT_MAX, Descriptor
from pandastack.images.oci.manifest import ImageManifest, read_manifest
from tests.support.oci_images import CONFIG, INDEX, LAYER, MANIFEST

HERE = "linux/amd64"
DIGEST = "sha256:" + "ab" * 32
BLOB = {"digest": DIGEST, "size": 7}
IMAGE = {
    "schemaVersion": 2,
    "mediaType": MANIFEST,
    "config": {"mediaType": CONFIG, **BLOB},
    "layers": [{"mediaType": LAYER, **BLOB}],
}
DOCKER = {
    "schemaVersion": 2,
    "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
    "config": {"mediaType": "application/vnd.docker.container.image.v1+json", **BLOB},
    "layers": [{"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", **BLOB}],
}


def entry(platform: str, **values: Any) -> dict[str, Any]:
    words = dict(zip(("os", "architecture", "variant"), platform.split("/"), strict=False))
    return {"mediaType": MANIFEST, **BLOB, "platform": words, **values}


def index(*entries: Any) -> dict[str, Any]:
    return {"schemaVersion": 2, "mediaType": INDEX, "manifests": list(entries)}


def read(table: Any) -> ImageManifest | Descriptor:
    return read_manifest(table if isinstance(table, bytes) else json.dumps(table).encode(), HERE, "FROM x")


def test_manifests_of_both_kinds() -> None:
    for table in (IMAGE, DOCKER, {key: value for key, value in IMAGE.items() if key != "mediaType"}):
        found = read(table)
        assert isinstance(found, ImageManifest) and found.size == 14 and len(found.layers) == 1


def test_the_image_for_this_platform_is_chosen() -> None:
    other = {"digest": "sha256:" + "cd" * 32}
    found = read(index(entry("linux/arm64/v8"), entry("unknown/unknown"), entry("linux/amd64/v1", **other)))
    assert isinstance(found, Descriptor) and found.digest == other["digest"]


def test_an_index_without_this_platform_says_what_there_is() -> None:
    with pytest.raises(BuildError, match="no image for linux/amd64") as refused:
        read(index(entry("linux/arm64/v8"), entry("windows/amd64"), entry("linux/arm/v7"), entry("unknown/unknown")))
    assert refused.value.hint == "there are: linux/arm/v7, linux/arm64, windows/amd64"


@pytest.mark.parametrize(
    "table",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"[" * 100_000, id="deep"),
        pytest.param(b" " * (DOCUMENT_MAX + 1), id="long"),
        pytest.param(b"\xff\xfe{}", id="not UTF-8"),
        pytest.param([IMAGE], id="a list"),
        pytest.param({}, id="empty"),
        pytest.param({**IMAGE, "schemaVersion": 1}, id="schema 1"),
        pytest.param({**IMAGE, "schemaVersion": "2"}, id="schema as text"),
        pytest.param({**IMAGE, "manifests": []}, id="image and index"),
        pytest.param({**IMAGE, "mediaType": INDEX}, id="image called index"),
        pytest.param({**index(entry(HERE)), "mediaType": MANIFEST}, id="index called image"),
        pytest.param({**IMAGE, "mediaType": "text/html"}, id="another kind"),
        pytest.param({**IMAGE, "config": None}, id="no config"),
        pytest.param(
            {**IMAGE, "config": {"mediaType": "application/vnd.cncf.helm.config.v1+json", **BLOB}}, id="a chart"
        ),
        pytest.param({**IMAGE, "layers": []}, id="no layers"),
        pytest.param({**IMAGE, "layers": {}}, id="layers as object"),
        pytest.param({**IMAGE, "layers": [7]}, id="layer as number"),
        pytest.param({**IMAGE, "layers": IMAGE["layers"] * 300}, id="many layers"),  # type: ignore[operator]
        pytest.param({**IMAGE, "layers": [{"mediaType": LAYER + "+encrypted", **BLOB}]}, id="encrypted"),
        pytest.param(
            {**IMAGE, "layers": [{"mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", **BLOB}]},
            id="elsewhere",
        ),
        *(
            pytest.param({**IMAGE, "layers": [{"mediaType": LAYER, **BLOB, **wrong}]}, id=f"layer {wrong}")
            for wrong in (
                *({"size": -1}, {"size": 1 << 60}, {"size": "7"}, {"size": True}, {"size": None}, {"size": 1.5}),
                *(
                    {"digest": "sha256:../../x"},
                    {"digest": "sha512:" + "a" * 128},
                    {"digest": 7},
                    {"digest": DIGEST + "\n"},
                ),
            )
        ),
        pytest.param(index(), id="empty index"),
        pytest.param(index(*[entry("linux/arm64")] * 1025), id="long index"),
        pytest.param(index({**entry(HERE), "platform": "linux"}), id="platform as text"),
        pytest.param(index(entry(HERE, mediaType=INDEX)), id="index in index"),
    ],
)
def test_what_is_no_manifest_is_an_error(table: Any) -> None:
    with pytest.raises(BuildError) as refused:
        read(table)
    assert len(refused.value.message) < 300


def config(settings: Mapping[str, Any] | None = None, **values: Any) -> dict[str, Any]:
    known = {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [DIGEST]}}
    return {**known, "config": settings, **values}


def settings_of(table: Any) -> Any:
    return read_config(json.dumps(table).encode(), 1, HERE, "FROM x")


def test_settings_are_what_later_instructions_inherit() -> None:
    found = settings_of(
        config(
            {
                "Env": ["A=1=2", "PATH=/bin", "EMPTY="],
                "Cmd": ["run"],
                "Entrypoint": ["/entry"],
                "User": "app:1000",
                "WorkingDir": "srv/../w",
                "Labels": {"k": "v"},
                "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
                "Volumes": {"/data": {}},
                "StopSignal": "sigint",
                "Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 3_000_000_000, "Retries": 2},
                "Shell": ["/bin/ash", "-c"],
                "OnBuild": ["RUN x"],
                "Unknown": [[]],
            }
        )
    )
    assert found.env == {"PATH": "/bin", "A": "1=2", "EMPTY": ""}
    assert (found.cmd, found.entrypoint, found.shell) == (("run",), ("/entry",), ("/bin/ash", "-c"))
    assert (found.user, found.workdir, found.labels) == ("app:1000", "/w", {"k": "v"})
    assert (found.exposed, found.volumes, found.stop_signal) == (("53/udp", "80/tcp"), ("/data",), "SIGINT")
    assert found.healthcheck == {"test": ("CMD-SHELL", "true"), "interval": "3000000000ns", "retries": "2"}


def test_settings_that_are_missing_are_the_usual_ones() -> None:
    for empty in (None, {}, {"Env": None, "User": "", "WorkingDir": "", "Labels": None, "Healthcheck": {}}):
        found = settings_of(config(empty))
        assert (found.user, found.workdir, found.shell) == ("root", "/", ("/bin/sh", "-c")) and "/bin" in found.env[
            "PATH"
        ]


@pytest.mark.parametrize(
    "table",
    [
        pytest.param(config(os="windows"), id="another system"),
        pytest.param(config(architecture="arm64"), id="another machine"),
        pytest.param(config(rootfs={"type": "layers", "diff_ids": []}), id="fewer layers"),
        pytest.param(config(rootfs={"type": "layers", "diff_ids": [7]}), id="diff_ids as numbers"),
        pytest.param(config(rootfs=[]), id="rootfs as list"),
        pytest.param({**config(), "config": []}, id="config as list"),
        *(
            pytest.param(config(wrong), id=f"{name} {number}")
            for name, number, wrong in (
                *(("Env", 1, {"Env": "A=1"}), ("Env", 2, {"Env": ["A"]}), ("Env", 3, {"Env": ["=x"]})),
                *(("Env", 4, {"Env": ["A=\0"]}), ("Env", 5, {"Env": [7]}), ("Env", 6, {"Env": {"A": "1"}})),
                *(("User", 1, {"User": "a b"}), ("User", 2, {"User": "../x"}), ("User", 3, {"User": 7})),
                *(("WorkingDir", 1, {"WorkingDir": "/\0"}), ("WorkingDir", 2, {"WorkingDir": []})),
                *(("Labels", 1, {"Labels": {"a": 1}}), ("Labels", 2, {"Labels": []})),
                *(("ExposedPorts", 1, {"ExposedPorts": {"x": {}}}), ("ExposedPorts", 2, {"ExposedPorts": ["80"]})),
                *(("StopSignal", 1, {"StopSignal": "SIGX"}), ("Shell", 1, {"Shell": "sh"}), ("Cmd", 1, {"Cmd": "run"})),
                *(("Healthcheck", 1, {"Healthcheck": {"Test": "x"}}), ("Healthcheck", 2, {"Healthcheck": []})),
                ("Volumes", 1, {"Volumes": {"/\0": {}}}),
            )
        ),
        pytest.param(config({"Env": [f"A{number}={'x' * 1024}" for number in range(SETTINGS_MAX // 1024)]}), id="much"),
    ],
)
def test_malformed_settings_are_an_error(table: Any) -> None:
    with pytest.raises(BuildError) as refused:
        settings_of(table)
    assert len(refused.value.message) < 300 and "\0" not in refused.value.message

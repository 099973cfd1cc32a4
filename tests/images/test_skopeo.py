"""Calls of skopeo: what it is told, and what its messages mean."""

from __future__ import annotations

import base64
import json

import pytest

from pandastack.errors import StorageFullError
from pandastack.images.oci import skopeo, unpack
from pandastack.model.image_reference import parse_reference
from pandastack.model.registries import RegistryCredential

ALPINE = parse_reference("r.example:5000/alpine:3")
CREDENTIALS = (
    RegistryCredential("r.example:5000", "me", "p:w"),
    RegistryCredential("docker.io", "hub", "other"),
)


def test_only_the_registry_that_is_asked_gets_its_credentials() -> None:
    table = json.loads(skopeo.auth_file(CREDENTIALS, "r.example:5000"))["auths"]
    assert list(table) == ["r.example:5000"] and base64.b64decode(table["r.example:5000"]["auth"]) == b"me:p:w"
    assert json.loads(skopeo.auth_file(CREDENTIALS, "r.example"))["auths"] == {}


def test_credentials_are_in_no_argument_and_no_variable() -> None:
    calls = [
        *skopeo.inspect("skopeo", ALPINE.exact, plain=False),
        *skopeo.copy("skopeo", ALPINE.exact, plain=True, recompress=True),
        *skopeo.environment().values(),
    ]
    assert not any("p:w" in each or each == "me" for each in calls)
    assert "p:w" not in repr(CREDENTIALS)


def test_tls_is_checked_but_for_registries_without() -> None:
    assert "--tls-verify=true" in skopeo.inspect("skopeo", ALPINE.exact, plain=False)
    assert "--src-tls-verify=true" in skopeo.copy("skopeo", ALPINE.exact, plain=False, recompress=False)
    assert "--src-tls-verify=false" in skopeo.copy("skopeo", ALPINE.exact, plain=True, recompress=False)


def fatal(text: str) -> str:
    return f'time="2026-01-01T00:00:00Z" level=fatal msg="{text}"\n'


@pytest.mark.parametrize(
    ("said", "signed_in", "expected"),
    [
        (
            fatal("reading manifest 3 in r.example:5000/alpine: unauthorized: authentication required"),
            False,
            "has none",
        ),
        (
            fatal("unable to retrieve auth token: invalid username/password: unauthorized"),
            True,
            "refuses the workspace",
        ),
        (fatal("reading manifest 3 in r: manifest unknown: manifest unknown"), False, "has no such image"),
        (fatal('pinging container registry r: Get \\"https://r/v2/\\": EOF'), False, 'Get "https://r/v2/": EOF'),
        (fatal('Get \\"https://s3.example/blob?X-Amz-Signature=abcdef\\": EOF'), False, "blob?…"),
        ("", False, "it said nothing"),
        ("panic: x\ngoroutine 1", False, "goroutine 1"),
    ],
)
def test_an_error_says_what_is_wrong(said: str, signed_in: bool, expected: str) -> None:
    error = skopeo.explained(ALPINE, said, signed_in=signed_in)
    assert expected in str(error) and str(error).startswith("FROM r.example:5000/alpine:3: ")
    assert "abcdef" not in str(error)
    assert (error.hint == "`pandastack registry login r.example:5000` stores them") is ("unauthorized" in said)


def test_a_full_disk_says_so() -> None:
    error = skopeo.explained(ALPINE, fatal("write /tmp/layout/x: no space left on device"), signed_in=False)
    assert isinstance(error, StorageFullError) and "cache" in (error.hint or "")


def test_what_umoci_says_has_a_reason() -> None:
    reason, hint = unpack.reason_of("apply layer: unpack entry: x: write /run/x: no space left on device", 512)
    assert reason == "the image does not fit on a disk of 512 MiB" and hint and "disk_mb" in hint
    assert unpack.reason_of("apply layer: something new", 1) == ("a layer cannot be unpacked", None)

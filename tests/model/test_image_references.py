"""Names of images, in the spellings that Docker and Podman take."""

from __future__ import annotations

import pytest

from pandastack.errors import BadRequestError
from pandastack.model.image_reference import parse_reference, parse_registry
from pandastack.model.registries import AllowedRegistry, parse_allowed

DIGEST = "sha256:" + "0a" * 32


@pytest.mark.parametrize(
    ("text", "exact"),
    [
        ("alpine", "docker.io/library/alpine:latest"),
        ("alpine:3.20", "docker.io/library/alpine:3.20"),
        ("grafana/grafana", "docker.io/grafana/grafana:latest"),
        ("index.docker.io/library/alpine", "docker.io/library/alpine:latest"),
        ("ghcr.io/a/b/c:V_1.2-x", "ghcr.io/a/b/c:V_1.2-x"),
        ("localhost/x", "localhost/x:latest"),
        ("LOCALHOST:5000/x", "localhost:5000/x:latest"),
        ("127.0.0.1:5000/a__b/c.d-e:1", "127.0.0.1:5000/a__b/c.d-e:1"),
        (f"alpine@{DIGEST}", f"docker.io/library/alpine@{DIGEST}"),
        (f"r.example:1/x:tag@{DIGEST}", f"r.example:1/x@{DIGEST}"),
    ],
)
def test_a_reference_has_one_spelling(text: str, exact: str) -> None:
    assert parse_reference(text).exact == exact
    assert parse_reference(exact).exact == exact


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            "A",
            "a/B",
            "a b",
            "-a",
            "a-",
            "a..b",
            "a:",
            "a:-x",
            "a:" + "x" * 129,
            "a\0",
            "é",
        ),
        *("a@", "a@sha256:12", "a@md5:" + "0" * 32, f"a@{DIGEST}0", f"a@{DIGEST.upper()}", f"a@{DIGEST}@{DIGEST}"),
        *("r.example:0/x", "r.example:65536/x", "r.example:x/x", "user@r.example/x", "http://r.example/x", "r_e.x/x"),
        *(
            "[::1]:5000/x",
            "r.example/../x",
            "r.example/./x",
            "oci:/x",
            "docker://a",
            "a" * 600,
            "r.example/" + "a" * 256,
        ),
        *("--authfile=x", "$(id)", "a;b", "a\nb", ".x/y", "-r.example/x", "a:1:2"),
    ],
)
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        parse_reference(text)
    assert refused.value.field == "image_ref" and len(refused.value.message) < 400


def test_a_registry_has_one_spelling() -> None:
    names = ("registry-1.docker.io", "Registry.Example:5000", "10.0.0.1")
    assert [parse_registry(each, field="host") for each in names] == [
        "docker.io",
        "registry.example:5000",
        "10.0.0.1",
    ]


def test_the_operators_registries() -> None:
    assert parse_allowed("") == ()
    assert parse_allowed("127.0.0.1:5000, registry.lan ,https://r.lan,https://r.lan:8443") == (
        AllowedRegistry("127.0.0.1", 5000, True),
        AllowedRegistry("registry.lan", 80, True),
        AllowedRegistry("r.lan", 443, False),
        AllowedRegistry("r.lan", 8443, False),
    )
    assert [each.is_loopback for each in parse_allowed("localhost:1,127.9.9.9:1,10.0.0.1:1,localhost.lan:1")] == [
        *(True, True),
        *(False, False),
    ]
    for wrong in ("a b", "r.lan:0", "ftp://x", "r.lan/path", "https://"):
        with pytest.raises(BadRequestError) as refused:
            parse_allowed(wrong)
        assert refused.value.field == "PANDASTACK_REGISTRIES"

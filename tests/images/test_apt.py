from pathlib import Path

import pytest

from pandastack.errors import BuildError
from pandastack.images.apt import (
    Source,
    debian_architecture,
    default_sources,
    host_sources,
    parse_deb822,
    render,
)


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_host_without_debian_sources_gets_debians_own(tmp_path: Path) -> None:
    write(tmp_path, "sources.list", "deb http://archive.ubuntu.com/ubuntu noble main\n")
    assert host_sources("bookworm", tmp_path) == default_sources("bookworm")


def test_the_hosts_mirror_is_used_and_the_rest_left(tmp_path: Path) -> None:
    write(
        tmp_path,
        "sources.list",
        "# old\ndeb [arch=amd64 signed-by=/k] http://mirror/debian bookworm main contrib # note\n"
        "deb-src http://mirror/debian bookworm main\ndeb file:/srv/debian bookworm-security main\n",
    )
    write(
        tmp_path,
        "sources.list.d/x.sources",
        "Types: deb\nURIs: http://mirror/debian\n# a comment\nSuites: bookworm-updates bookworm-backports\n"
        "Components: main\n\n"
        "Types: deb\nURIs: https://other\nSuites: nodistro\nComponents: main\n\n"
        "Enabled: no\nTypes: deb\nURIs: http://off\nSuites: bookworm-security\nComponents: main\n",
    )
    assert host_sources("bookworm", tmp_path) == (
        Source(("http://mirror/debian",), ("bookworm",)),
        Source(("http://mirror/debian",), ("bookworm-updates",)),
        Source(("http://deb.debian.org/debian-security",), ("bookworm-security",)),
    )


def test_rendered_sources_read_back() -> None:
    stanzas = parse_deb822(render(default_sources("bookworm")))
    assert [stanza["Suites"] for stanza in stanzas] == ["bookworm bookworm-updates", "bookworm-security"]
    assert all(stanza["Signed-By"].startswith("/usr/share/keyrings/") for stanza in stanzas)


def test_deb822_continuation() -> None:
    assert parse_deb822("A: 1\n 2\n\n\nB:3\n") == [{"A": "1\n2"}, {"B": "3"}]


def test_architectures() -> None:
    assert debian_architecture("aarch64") == "arm64"
    with pytest.raises(BuildError, match="riscv64"):
        debian_architecture("riscv64")

"""Resolvers asked for real: apt with the host's mirrors, pip with the host's index."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from pandastack.errors import BadRequestError
from pandastack.images.apt import Apt, debian_architecture, private_apt
from pandastack.images.packages import debian, npm, python
from pandastack.images.packages.declared import Packages
from pandastack.images.packages.resolve import resolve
from pandastack.images.tree import debian_tree

pytestmark = [pytest.mark.network, pytest.mark.timeout(1800)]


@pytest.fixture
async def apt() -> AsyncIterator[Apt]:
    async with private_apt(debian_architecture()) as apt:
        yield apt


async def test_debian_packages_come_with_what_they_need(apt: Apt) -> None:
    found = {deb.name: deb for deb in await debian.resolve(apt, ["less", "git"])}
    assert {"less", "git", "libc6"} <= set(found) and "man-db" not in found
    assert found["git"].path.startswith("pool/") and len(found["git"].sha256) == 64
    old = replace(found["git"], version="1:1.0-1", sha256="0" * 64)
    again = await debian.resolve(apt, ["git"], [old])
    assert debian.replaced([old], again) == {"git": f"1:1.0-1 → {found['git'].version}"}


@pytest.mark.parametrize(
    ("entry", "message", "hint"),
    [
        ("pyton3", "Debian package pyton3 does not exist", "python3"),
        ("git=1:1.0-1", "has no version 1:1.0-1", "the mirrors have"),
        ("mail-transport-agent", "only a name that others provide", ""),
    ],
)
async def test_a_debian_package_that_is_not_there_is_named(apt: Apt, entry: str, message: str, hint: str) -> None:
    with pytest.raises(BadRequestError, match=message) as caught:
        await debian.resolve(apt, [entry])
    assert hint in (caught.value.hint or "") and caught.value.field == "packages.debian"


@pytest.mark.parametrize(
    ("entry", "message", "hint"),
    [
        ("nunpy-is-misspelt", "nunpy-is-misspelt does not exist", ""),
        ("sklearns>=99", "sklearns", ""),
        ("six>=999", "no version of six>=999 fits", ""),
        ("pywin32", "has no wheel for Debian's Python", "win_amd64"),
    ],
)
async def test_a_python_package_that_does_not_fit_is_named(entry: str, message: str, hint: str) -> None:
    with pytest.raises(BadRequestError, match=message) as caught:
        await python.resolve([entry], (), debian_architecture())
    assert hint in (caught.value.hint or "") and caught.value.field == "packages.python"


async def test_what_a_base_has_keeps_its_version() -> None:
    base = debian_tree().with_packages(await resolve(Packages(python=("six<1.17",)), debian_tree()))
    assert [wheel.name for wheel in base.wheels] == ["six"]
    above = await resolve(Packages(python=("python-dateutil<2.10",)), base)
    assert [wheel.name for wheel in above.python] == ["python-dateutil"]
    with pytest.raises(BadRequestError, match="six"):
        await resolve(Packages(python=("six>=1.17",)), base)


async def test_npm_resolves_what_is_declared_whatever_its_users_settings_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tmp_path / "npmrc"
    settings.write_text("omit-lockfile-registry-resolved = true\n")
    monkeypatch.setenv("NPM_CONFIG_USERCONFIG", str(settings))
    (package,) = await npm.resolve(["left-pad@1.3.0"], debian_architecture())
    assert (package.name, package.version) == ("left-pad", "1.3.0")
    assert package.url.startswith("http") and len(package.sha512) == 128

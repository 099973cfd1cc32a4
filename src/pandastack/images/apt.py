"""Debian packages as files: a private apt, with the host's mirrors, keys and proxy, that never touches the
host's state."""

from __future__ import annotations

import re
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from pandastack.errors import BuildError
from pandastack.host.facts import architecture
from pandastack.host.processes.run import CommandError, run

SUITE = "bookworm"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

_DEBIAN_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_TIMEOUT = 600.0


def debian_architecture(machine: str | None = None) -> str:
    """Debian's name for a machine architecture (default: this host's). Raises :class:`BuildError` for
    others."""
    machine = machine or architecture()
    try:
        return _DEBIAN_ARCHITECTURES[machine]
    except KeyError:
        raise BuildError(f"no Debian images are made for the architecture {machine}") from None


@dataclass(frozen=True)
class Source:
    """Where packages come from: one stanza of sources.list(5) in the deb822 format."""

    uris: tuple[str, ...]
    suites: tuple[str, ...]
    components: tuple[str, ...] = ("main",)
    signed_by: str = KEYRING

    def __str__(self) -> str:
        return (
            f"Types: deb\nURIs: {' '.join(self.uris)}\nSuites: {' '.join(self.suites)}\n"
            f"Components: {' '.join(self.components)}\nSigned-By: {self.signed_by}\n"
        )


def render(sources: tuple[Source, ...]) -> str:
    """The text of a ``.sources`` file."""
    return "\n".join(str(source) for source in sources)


def default_sources(suite: str = SUITE) -> tuple[Source, ...]:
    """Debian's own servers: the release, its updates and its security updates."""
    return (
        Source(("http://deb.debian.org/debian",), (suite, f"{suite}-updates")),
        Source(("http://deb.debian.org/debian-security",), (f"{suite}-security",)),
    )


def host_sources(suite: str = SUITE, root: Path = Path("/etc/apt")) -> tuple[Source, ...]:
    """The mirrors that this host is configured to use for ``suite``; Debian's own servers if there are none.

    Only mirrors that a guest can use too are included: network mirrors of the suite itself, component ``main``.
    """
    wanted = {suite, f"{suite}-updates", f"{suite}-security"}
    found = []
    for source in _configured(root):
        suites = tuple(name for name in source.suites if name in wanted)
        uris = tuple(uri for uri in source.uris if uri.startswith(("http://", "https://")))
        if suites and uris and "main" in source.components:
            found.append(Source(uris, suites))
    missing = wanted - {name for source in found for name in source.suites}
    for source in default_sources(suite):
        if lacking := tuple(name for name in source.suites if name in missing):
            found.append(Source(source.uris, lacking))
    return tuple(found)


def _configured(root: Path) -> Iterator[Source]:
    parts = root / "sources.list.d"
    for path in [root / "sources.list", *sorted(parts.glob("*.list"))]:
        if path.is_file():
            yield from _one_line_entries(path.read_text())
    for path in sorted(parts.glob("*.sources")):
        yield from _stanzas(path.read_text())


def _one_line_entries(text: str) -> Iterator[Source]:
    for line in text.splitlines():
        words = re.sub(r"\[[^]]*\]", "", line.partition("#")[0]).split()
        if len(words) >= 4 and words[0] == "deb":
            yield Source((words[1],), (words[2],), tuple(words[3:]))


def _stanzas(text: str) -> Iterator[Source]:
    for stanza in parse_deb822(text):
        if "deb" in stanza.get("Types", "").split() and stanza.get("Enabled", "yes") != "no":
            yield Source(
                tuple(stanza.get("URIs", "").split()),
                tuple(stanza.get("Suites", "").split()),
                tuple(stanza.get("Components", "").split()),
            )


def parse_deb822(text: str) -> list[dict[str, str]]:
    """Stanzas of ``Field: value`` with continuation lines and comments, as in deb822(5)."""
    stanzas: list[dict[str, str]] = [{}]
    name = ""
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        if not line.strip():
            stanzas.append({})
        elif line[0].isspace():
            stanzas[-1][name] = f"{stanzas[-1].get(name, '')}\n{line.strip()}"
        else:
            name, _, value = line.partition(":")
            stanzas[-1][name] = value.strip()
    return [stanza for stanza in stanzas if stanza]


@dataclass(frozen=True)
class Package:
    """One version of a package as the archive's signed index describes it. ``sha256`` is that of the ``.deb``
    file."""

    name: str
    version: str
    sha256: str
    depends: tuple[str, ...] = ()


@dataclass(frozen=True)
class Apt:
    """A private apt with all of its state in ``home``. Made by :func:`private_apt`."""

    home: Path

    @property
    def options(self) -> tuple[str, str]:
        """What makes apt's tools use this state and no other."""
        return "-c", str(self.home / "apt.conf")

    def prefer(self, versions: Mapping[str, str]) -> None:
        """Choose these versions where the mirrors have them (apt_preferences(5)); others get their candidates."""
        pins = (f"Package: {name}\nPin: version {version}\nPin-Priority: 1001\n" for name, version in versions.items())
        (self.home / "preferences").write_text("\n".join(pins))

    async def show(self, name: str, version: str | None = None) -> Package | None:
        """The candidate, or exactly ``version``, or ``None`` when the mirrors do not have it."""
        wanted = f"{name}={version}" if version else name
        shown = await run(
            ["apt-cache", *self.options, "show", "--no-all-versions", wanted], timeout=_TIMEOUT, check=False
        )
        for stanza in parse_deb822(shown.text):
            if stanza.get("Package") == name and version in (None, stanza.get("Version")):
                depends = re.findall(r"(?:^|[,|])\s*([a-z0-9][a-z0-9+.-]*)", stanza.get("Depends", ""))
                return Package(name, stanza["Version"], stanza.get("SHA256", ""), tuple(depends))
        return None

    async def download(self, package: Package, into: Path) -> Path:
        """Fetch the package's file into the directory ``into``; apt has checked it against the signed
        index."""
        argv = ["apt-get", *self.options, "-qq", "download", f"{package.name}={package.version}"]
        await run(argv, cwd=into, timeout=_TIMEOUT)
        return _only_file(into, f"{package.name}_*.deb")


def _only_file(directory: Path, glob: str) -> Path:
    found = list(directory.glob(glob))
    if len(found) != 1:
        raise BuildError(f"apt left {len(found)} files {glob}, expected one")
    return found[0]


@asynccontextmanager
async def private_apt(arch: str, suite: str = SUITE) -> AsyncIterator[Apt]:
    """An apt with fresh package lists for the Debian architecture ``arch``, for the length of the block."""
    with tempfile.TemporaryDirectory(prefix="pandastack-apt-") as directory:
        home = Path(directory)
        _prepare(home, arch, render(host_sources(suite)))
        try:
            await run(["apt-get", "-c", home / "apt.conf", "-qq", "update"], timeout=_TIMEOUT)
        except CommandError as error:
            raise BuildError(
                f"the package lists of Debian {suite} could not be fetched: {error.message}",
                hint="check this host's network, proxy and apt sources",
            ) from error
        yield Apt(home)


def _prepare(home: Path, arch: str, sources: str) -> None:
    for name in ("state/lists/partial", "cache/archives/partial"):
        (home / name).mkdir(parents=True)
    (home / "state/status").touch()
    (home / "preferences").touch()
    (home / "none").mkdir()
    (home / "debian.sources").write_text(sources)
    # The host's own apt.conf is read first (it may name a proxy); its hooks belong to the host and must not
    # run.
    (home / "apt.conf").write_text(
        "#clear APT::Update::Pre-Invoke;\n#clear APT::Update::Post-Invoke;\n"
        "#clear APT::Update::Post-Invoke-Success;\n"
        f'Dir::State "{home}/state";\nDir::State::status "{home}/state/status";\n'
        f'Dir::Cache "{home}/cache";\nDir::Etc::sourcelist "{home}/debian.sources";\n'
        f'Dir::Etc::sourceparts "{home}/none";\nDir::Etc::preferences "{home}/preferences";\n'
        f'Dir::Etc::preferencesparts "{home}/none";\n'
        f'APT::Architecture "{arch}";\nAPT::Architectures {{ "{arch}"; }};\n'
        'APT::Sandbox::User "root";\nAcquire::Languages "none";\nAcquire::Retries "3";\n'
    )

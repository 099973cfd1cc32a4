"""Files fetched from the web into the cache, several at a time, each under the hash that it must have."""

from __future__ import annotations

import hashlib
import os
import shutil
import ssl
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio
import httpx

from pandastack.errors import BuildError
from pandastack.host.tasks import together
from pandastack.images.cache import Cache

AT_ONCE = 8
TIMEOUT = 60.0
"""Seconds without a byte after which a transfer has failed."""

TRIES = 3
"""How often a file is asked for: a registry's edge resets a connection now and then."""

SIZE_MAXIMUM = 4 << 30
"""Bytes of a file whose size nobody has said."""

_KIND = "downloads"
_BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")

Report = Callable[[int, int], None]
"""Told how many bytes of how many are here."""


@dataclass(frozen=True)
class Download:
    """A file that may be at any of ``urls``. ``digest`` is the hexadecimal digest by ``algorithm``; ``size`` is in
    bytes, 0 if unknown."""

    name: str
    urls: tuple[str, ...]
    digest: str
    size: int = 0
    algorithm: str = "sha256"


def find(cache: Cache, file: Download) -> Path | None:
    """Where the file is in the cache, if it is there."""
    entry = cache.find(_KIND, file.digest)
    return entry / file.name if entry else None


async def add(cache: Cache, file: Download, path: Path) -> None:
    """Put a file that something else has fetched into the cache. Raises :class:`BuildError` for another content."""
    async with cache.entry(_KIND, file.digest) as entry:
        if not entry.ready:
            with path.open("rb") as source:
                _check(file, hashlib.file_digest(source, file.algorithm).hexdigest())
            shutil.move(path, entry.work / file.name)
            entry.commit()


async def fetch(cache: Cache, files: Sequence[Download], report: Report) -> Sequence[Download]:
    """Fetch what the cache lacks; returns the files that none of their addresses had."""
    wanted = [file for file in files if find(cache, file) is None]
    if not wanted:
        return []
    missing: list[Download] = []
    transfer = _Transfer(cache, report, sum(file.size for file in wanted))
    turns = anyio.CapacityLimiter(AT_ONCE)

    async def one(file: Download) -> None:
        async with turns:
            if not await transfer.take(file):
                missing.append(file)

    async with client() as transfer.client:
        await together(*(partial(one, file) for file in sorted(wanted, key=lambda file: -file.size)))
    return missing


class _Transfer:
    """The files of one call under way."""

    client: httpx.AsyncClient

    def __init__(self, cache: Cache, report: Report, total: int) -> None:
        self._cache, self._report, self._total = cache, report, total
        self._done = 0

    async def take(self, file: Download) -> bool:
        async with self._cache.entry(_KIND, file.digest) as entry:
            if entry.ready:
                return True
            for url in file.urls:
                if await self._try(file, url, entry.work / file.name):
                    entry.commit()
                    return True
        return False

    async def _try(self, file: Download, url: str, target: Path) -> bool:
        for _ in range(TRIES):
            before = self._done
            try:
                await self._stream(file, url, target)
                return True
            except httpx.HTTPStatusError as error:
                if error.response.status_code < 500:
                    return False
            except httpx.TransportError:
                pass
            self._done = before
        return False

    async def _stream(self, file: Download, url: str, target: Path) -> None:
        digest, length, most = hashlib.new(file.algorithm), 0, file.size or SIZE_MAXIMUM
        async with self.client.stream("GET", url) as response:
            response.raise_for_status()
            with target.open("wb") as into:
                async for chunk in response.aiter_bytes(256 * 1024):
                    length += len(chunk)
                    if length > most:  # before a mirror fills the disk
                        raise BuildError(f"{file.name} is not the locked file: longer than {most} bytes")
                    into.write(chunk)
                    digest.update(chunk)
                    self._done += len(chunk)
                    self._report(self._done, max(self._total, self._done))
        _check(file, digest.hexdigest())


def _check(file: Download, digest: str) -> None:
    if digest != file.digest:
        raise BuildError(f"{file.name} is not the locked file: {file.algorithm} {digest}, locked {file.digest}")


@contextmanager
def scratch() -> Iterator[Path]:
    """A directory for the length of the block."""
    with tempfile.TemporaryDirectory(prefix="pandastack-fetch-") as directory:
        yield Path(directory)


def client() -> httpx.AsyncClient:
    """A client that trusts what this host trusts and uses its proxies."""
    return httpx.AsyncClient(verify=_trust(), timeout=TIMEOUT, follow_redirects=True)


def _trust() -> ssl.SSLContext:
    """This host's certificates, which may be more than Python's own: a company's proxy, say."""
    context = ssl.create_default_context()
    for bundle in (*_BUNDLES, os.environ.get("PIP_CERT", "")):
        if bundle and Path(bundle).is_file():
            context.load_verify_locations(bundle)
    return context


def fetched(cache: Cache, files: Sequence[Download]) -> Mapping[str, Path]:
    """The cached files by name. Raises :class:`BuildError` when one is not there."""
    paths = {}
    for file in files:
        path = find(cache, file)
        if path is None:
            raise BuildError(f"{file.name} is not in the cache")
        paths[file.name] = path
    return paths

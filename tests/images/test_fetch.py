"""Files fetched from a real server into a real cache."""

import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pandastack.errors import BuildError
from pandastack.images.cache import Cache
from pandastack.images.packages.fetch import Download, add, fetch, find


class Quiet(SimpleHTTPRequestHandler):
    asked: list[str]

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.asked.append(self.path)
        super().do_GET()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    folder = tmp_path / "site"
    folder.mkdir()
    Quiet.asked = []
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}", folder
        server.shutdown()


def ignore(done: int, total: int) -> None:
    pass


async def test_files_are_fetched_once_from_the_address_that_has_them(site: tuple[str, Path], tmp_path: Path) -> None:
    url, folder = site
    (folder / "a").write_bytes(b"x" * 1000)
    cache, reports = Cache(tmp_path / "cache"), list[tuple[int, int]]()
    file = Download("a.whl", (f"{url}/gone", f"{url}/a"), hashlib.sha256(b"x" * 1000).hexdigest(), 1000)
    gone = Download("b.whl", (f"{url}/b",), "0" * 64, 5)
    assert await fetch(cache, [file, gone], lambda done, total: reports.append((done, total))) == [gone]
    path = find(cache, file)
    assert path and path.read_bytes() == b"x" * 1000 and find(cache, gone) is None
    assert reports[-1] == (1000, 1005)
    Quiet.asked.clear()
    assert await fetch(cache, [file], ignore) == [] and Quiet.asked == []


async def test_another_content_is_refused_and_not_cached(site: tuple[str, Path], tmp_path: Path) -> None:
    url, folder = site
    (folder / "a").write_bytes(b"evil")
    cache, file = Cache(tmp_path / "cache"), Download("a.whl", (f"{url}/a",), "0" * 64)
    with pytest.raises(BuildError, match=r"a\.whl is not the locked file"):
        await fetch(cache, [file], ignore)
    assert find(cache, file) is None
    with pytest.raises(BuildError, match="not the locked file"):
        await add(cache, file, folder / "a")


async def test_a_file_longer_than_the_locked_one_is_not_taken_to_its_end(
    site: tuple[str, Path], tmp_path: Path
) -> None:
    url, folder = site
    (folder / "a").write_bytes(bytes(8 << 20))
    done, file = list[int](), Download("a.whl", (f"{url}/a",), "0" * 64, 1000)
    with pytest.raises(BuildError, match=r"a\.whl is not the locked file: longer than 1000 bytes"):
        await fetch(Cache(tmp_path / "cache"), [file], lambda here, total: done.append(here))
    assert done == []

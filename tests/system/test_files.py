"""Files of a real guest through every route."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import httpx
import pytest

from pandastack import NotFoundError, Sandbox

LIMIT = 32 * 1024**2


@pytest.mark.parametrize("content", [b"", b"x", bytes(range(256)) * 3, os.urandom(5_000_000)], ids=len)
def test_bytes_come_back_exactly(sandbox: Sandbox, content: bytes) -> None:
    sandbox.filesystem.write("/workspace/deep/er/file", content)
    assert sandbox.filesystem.read("/workspace/deep/er/file") == content
    sandbox.filesystem.write("/workspace/deep/er/file", b"short")
    assert sandbox.filesystem.read("/workspace/deep/er/file") == b"short"


def test_the_largest_file_is_written_and_a_larger_one_refused(sandbox: Sandbox, http: httpx.Client) -> None:
    url = f"/sandboxes/{sandbox.id}/fs"
    largest = os.urandom(1024**2) * 32
    written = http.put(url, params={"path": "/root/large"}, content=largest)
    assert (written.status_code, written.json()) == (200, {"path": "/root/large", "bytes": LIMIT})
    assert http.get(url, params={"path": "/root/large"}).content == largest
    assert http.put(url, params={"path": "/root/larger"}, content=largest + b"x").status_code == 413
    assert not sandbox.filesystem.exists("/root/larger")


def test_a_body_of_unknown_length_ends_at_the_limit(sandbox: Sandbox, http: httpx.Client) -> None:
    sandbox.filesystem.write("/root/endless", "old")
    endless = (b"x" * 1024**2 for _ in range(40))
    answer = http.put(f"/sandboxes/{sandbox.id}/fs", params={"path": "/root/endless"}, content=endless)
    assert answer.status_code == 413
    assert sandbox.filesystem.read("/root/endless") == b"old"
    assert sandbox.exec("ls -A /root | grep pandastack").stdout == ""


def test_a_name_may_hold_anything(sandbox: Sandbox) -> None:
    name = "/workspace/a b%20&c=d#ü\n?.txt"
    sandbox.filesystem.write(name, "text: ü")
    assert sandbox.filesystem.read(name) == "text: ü".encode()
    assert name.rpartition("/")[2] in [each.name for each in sandbox.filesystem.listdir("/workspace")]


def test_what_is_listed(sandbox: Sandbox) -> None:
    sandbox.exec("mkdir -p /srv/l/dir; echo 12345 > /srv/l/file; ln -s dir /srv/l/link; mkfifo /srv/l/pipe", check=True)
    found = {each.name: each for each in sandbox.filesystem.listdir("/srv/l")}
    assert {name: each.is_dir for name, each in found.items()} == {
        "dir": True,
        "file": False,
        "link": False,
        "pipe": False,
    }
    assert (found["file"].size, found["file"].path, found["file"].mode) == (6, "/srv/l/file", "-rw-r--r--")
    assert abs(found["file"].mtime - time.time()) < 60


def test_a_directory_of_many_files_is_listed_whole(sandbox: Sandbox) -> None:
    sandbox.exec("mkdir /srv/many && cd /srv/many && seq 5000 | xargs touch", check=True)
    assert {each.name for each in sandbox.filesystem.listdir("/srv/many")} == {str(number) for number in range(1, 5001)}


def test_walk_ends_although_links_go_round(sandbox: Sandbox) -> None:
    sandbox.exec("mkdir -p /srv/w/a/b; touch /srv/w/a/b/c; ln -s .. /srv/w/a/up", check=True)
    found = {
        path: ({each.name for each in directories}, {each.name for each in files})
        for path, directories, files in sandbox.filesystem.walk("/srv/w")
    }
    assert found == {"/srv/w": ({"a"}, set()), "/srv/w/a": ({"b"}, {"up"}), "/srv/w/a/b": (set(), {"c"})}


def test_removing_is_recursive_and_of_nothing_is_fine(sandbox: Sandbox, http: httpx.Client) -> None:
    sandbox.exec("mkdir -p /srv/r/a; touch /srv/r/a/b; touch /srv/kept; ln -s /srv/kept /srv/r/link", check=True)
    for _ in range(2):
        assert http.delete(f"/sandboxes/{sandbox.id}/fs", params={"path": "/srv/r"}).status_code == 204
    assert not sandbox.filesystem.exists("/srv/r")
    assert sandbox.filesystem.exists("/srv/kept")


def test_links_are_followed(sandbox: Sandbox) -> None:
    sandbox.exec("echo target > /srv/target; ln -s target /srv/alias", check=True)
    assert sandbox.filesystem.read("/srv/alias") == b"target\n"
    assert sandbox.filesystem.stat("/srv/alias").size == 7
    sandbox.filesystem.write("/srv/alias", "new")
    assert sandbox.exec("cat /srv/target", check=True).stdout == "new"


def test_what_is_missing_is_not_found(sandbox: Sandbox, http: httpx.Client) -> None:
    for route in ("fs", "fs/stat", "fs/dir"):
        answer = http.get(f"/sandboxes/{sandbox.id}/{route}", params={"path": "/no/such"})
        assert (route, answer.status_code) == (route, 404)
        assert isinstance(answer.json()["error"], str)
    with pytest.raises(NotFoundError):
        sandbox.filesystem.read("/no/such")


@pytest.mark.parametrize("path", ["relative", "", "./here", "/a\0b", "/" + "x" * 5000])
def test_a_bad_path_is_refused(sandbox: Sandbox, http: httpx.Client, path: str) -> None:
    url = f"/sandboxes/{sandbox.id}/fs"
    for method in ("GET", "PUT", "DELETE"):
        answer = http.request(method, url, params={"path": path}, content=b"x")
        assert (method, answer.status_code) == (method, 400)
    assert http.get(f"{url}/stat", params={"path": path}).status_code == 400


@pytest.mark.parametrize("path", ["/root", "/dev/zero"])
def test_only_files_can_be_read(sandbox: Sandbox, http: httpx.Client, path: str) -> None:
    answer = http.get(f"/sandboxes/{sandbox.id}/fs", params={"path": path})
    assert answer.status_code == 400
    assert isinstance(answer.json()["error"], str)


def test_a_file_cannot_replace_a_directory(sandbox: Sandbox, http: httpx.Client) -> None:
    answer = http.put(f"/sandboxes/{sandbox.id}/fs", params={"path": "/root"}, content=b"x")
    assert answer.status_code == 400
    assert sandbox.filesystem.stat("/root").is_dir


def test_files_of_no_fixed_size_are_read_whole(sandbox: Sandbox) -> None:
    assert b"MemTotal" in sandbox.filesystem.read("/proc/meminfo")


def test_a_file_in_pieces(http: httpx.Client, sandbox: Sandbox) -> None:
    url, path = f"/sandboxes/{sandbox.id}/fs", "/srv/pieces/file"

    def put(offset: int | str, content: bytes) -> httpx.Response:
        return http.put(url, params={"path": path, "offset": offset}, content=content)

    assert put(0, b"one ").json() == {"path": path, "bytes": 4}
    assert put(4, b"two").status_code == 200
    for wrong in (3, 8):
        assert put(wrong, b"lost").status_code == 409
    assert put("-1", b"").status_code == 400
    assert sandbox.filesystem.read(path) == b"one two"
    assert put(0, b"anew").status_code == 200
    assert sandbox.filesystem.read(path) == b"anew"
    assert sandbox.exec("ls -A /tmp | grep pandastack || true").stdout == ""


def test_a_local_file_larger_than_a_request_may_be(sandbox: Sandbox, tmp_path: Path) -> None:
    local = tmp_path / "large"
    local.write_bytes(os.urandom(40 * 1024**2))
    assert sandbox.filesystem.upload(local, "/srv/large") == {"path": "/srv/large", "bytes": 40 * 1024**2}
    digest = hashlib.sha256(local.read_bytes()).hexdigest()
    assert sandbox.exec("sha256sum /srv/large; ls /srv/large*").stdout == f"{digest}  /srv/large\n/srv/large\n"

"""Parts of files and whole trees of them: archives, moves, modes, searches. Nobody is harmed by a hostile one."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import httpx
import pytest

from pandastack import BadRequestError, Sandbox
from tests.support.installation import Create

HOSTILE = """#!/usr/bin/python3
import io, sys, tarfile
out = tarfile.open(fileobj=sys.stdout.buffer, mode="w|")
good = tarfile.TarInfo("good"); good.size = 4; good.mode = 0o4755
out.addfile(good, io.BytesIO(b"good"))
MEMBER
out.close()
"""


@pytest.fixture
def url(sandbox: Sandbox) -> str:
    return f"/sandboxes/{sandbox.id}/fs"


def archive(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as made:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.uid = len(content), 0o6755, 1000
            made.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def test_one_range_of_a_file(http: httpx.Client, sandbox: Sandbox, url: str) -> None:
    data = bytes(range(256)) * 1000
    sandbox.filesystem.write("/root/data", data)
    whole = http.get(url, params={"path": "/root/data"})
    assert (whole.status_code, whole.headers["accept-ranges"]) == (200, "bytes")
    for asked, first, last in (
        ("0-0", 0, 0),
        ("1000-2999", 1000, 2999),
        ("255990-", 255990, 255999),
        ("-7", 255993, 255999),
    ):
        part = http.get(url, params={"path": "/root/data"}, headers={"range": f"bytes={asked}"})
        assert (part.status_code, part.content) == (206, data[first : last + 1])
        assert part.headers["content-range"] == f"bytes {first}-{last}/256000"
        assert part.headers["content-length"] == str(last + 1 - first)
    beyond = http.get(url, params={"path": "/root/data"}, headers={"range": "bytes=256000-"})
    assert (beyond.status_code, beyond.json()["field"]) == (416, "range")
    several = http.get(url, params={"path": "/root/data"}, headers={"range": "bytes=0-1,5-6"})
    assert (several.status_code, several.content) == (200, data)
    assert http.get(url, params={"path": "/no"}, headers={"range": "bytes=0-1"}).status_code == 404
    assert http.get(url, params={"path": "/etc"}, headers={"range": "bytes=0-1"}).status_code == 400


def test_directories_names_and_modes(http: httpx.Client, sandbox: Sandbox, url: str) -> None:
    made = http.post(f"{url}/mkdir", json={"path": "/srv/a b/ü/-c", "mode": "0700"})
    assert (made.status_code, made.json()["is_dir"], made.json()["mode"]) == (200, True, "drwx------")
    assert http.post(f"{url}/mkdir", json={"path": "/srv/a b"}).status_code == 200
    sandbox.filesystem.write("/srv/a b/file", "1")
    assert http.post(f"{url}/mkdir", json={"path": "/srv/a b/file"}).status_code == 400
    moved = http.post(f"{url}/move", json={"from": "/srv/a b", "to": "/srv/new/'quoted'"})
    assert (moved.status_code, moved.json()["path"]) == (200, "/srv/new/'quoted'")
    assert sandbox.filesystem.read("/srv/new/'quoted'/file") == b"1"
    assert not sandbox.filesystem.exists("/srv/a b")
    sandbox.filesystem.write("/srv/other", "2")
    body = {"from": "/srv/other", "to": "/srv/new/'quoted'/file"}
    there = http.post(f"{url}/move", json=body)
    assert (there.status_code, there.json()["field"], "overwrite" in there.json()["hint"]) == (409, "to", True)
    assert http.post(f"{url}/move", json={**body, "overwrite": True}).status_code == 200
    assert sandbox.filesystem.read(body["to"]) == b"2"
    assert http.post(f"{url}/move", json=body).status_code == 404
    changed = http.post(f"{url}/chmod", json={"path": body["to"], "mode": "0640"})
    assert (changed.status_code, changed.json()["mode"]) == (200, "-rw-r-----")
    http.post(f"{url}/chmod", json={"path": "/srv/new", "mode": "0700", "recursive": True})
    assert sandbox.exec(f'stat -c %a "{body["to"]}"').stdout == "700\n"
    assert http.post(f"{url}/chmod", json={"path": "/no/such", "mode": "0700"}).status_code == 404


@pytest.mark.parametrize(
    ("route", "body", "field"),
    [
        ("mkdir", {}, "path"),
        ("mkdir", {"path": "relative"}, "path"),
        ("mkdir", {"path": "/x", "mode": "u+s"}, "mode"),
        ("chmod", {"path": "/x"}, "mode"),
        ("chmod", {"path": "/x", "mode": "99999"}, "mode"),
        ("move", {"from": "x", "to": "/y"}, "from"),
        ("move", {"from": "/x"}, "to"),
        ("move", {"from": "/x", "to": "/y\0"}, "to"),
    ],
)
def test_what_cannot_be_right_is_refused(
    http: httpx.Client, url: str, route: str, body: dict[str, str], field: str
) -> None:
    refused = http.post(f"{url}/{route}", json=body)
    assert (refused.status_code, refused.json()["field"]) == (400, field)


def test_a_directory_goes_there_and_back(http: httpx.Client, sandbox: Sandbox, url: str, tmp_path: Path) -> None:
    members = {"top": b"1", "deep/er/ü": b"x" * 100_000, "-rf": b"", "deep/" + "n" * 150: b"long"}
    put = http.put(f"{url}/tar", params={"path": "/srv/tree"}, content=archive(**members))
    assert (put.status_code, put.json()["members"], put.json()["path"]) == (200, 4, "/srv/tree")
    assert sandbox.exec("stat -c '%a %u' /srv/tree/top; ls /tmp/.pandastack* 2>/dev/null").stdout == "755 0\n"
    sandbox.exec(
        "cd /srv/tree && ln -s deep/er link && chmod 4711 top && chown 7:7 top && mkfifo pipe && rm pipe", check=True
    )
    got = http.get(f"{url}/tar", params={"path": "/srv/tree"})
    assert (got.status_code, got.headers["content-type"]) == (200, "application/x-tar")
    with tarfile.open(fileobj=io.BytesIO(got.content)) as opened:
        opened.extractall(tmp_path)
        top = opened.getmember("top")
        assert (top.mode, top.uid, top.gid) == (0o711, 0, 0)
        assert opened.getmember("link").linkname == "deep/er"
    assert {
        str(each.relative_to(tmp_path)): each.read_bytes() for each in tmp_path.rglob("*") if each.is_file()
    } == members


def test_archives_that_are_refused(http: httpx.Client, sandbox: Sandbox, url: str) -> None:
    for member in ("/etc/evil", "../evil", "a/../../evil"):
        content = archive(first=b"x" * 500_000, **{member: b"evil"})
        refused = http.put(f"{url}/tar", params={"path": "/srv/refused"}, content=content)
        assert (refused.status_code, refused.json()["field"]) == (400, "member")
        assert member in refused.json()["error"]
    assert http.put(f"{url}/tar", params={"path": "/srv/refused"}, content=b"nonsense" * 200).status_code == 400
    assert http.put(f"{url}/tar", params={"path": "/srv/refused"}, content=b"").status_code == 400
    assert http.put(f"{url}/tar", params={"path": "srv"}, content=archive(a=b"")).json()["field"] == "path"
    assert not sandbox.filesystem.exists("/srv/refused"), "nothing of an archive that is refused is unpacked"
    assert sandbox.exec("ls -A /tmp").stdout == ""
    assert http.put(f"{url}/tar", params={"path": "/etc/hostname"}, content=archive(a=b"")).status_code == 400


def test_directories_that_cannot_be_packed(http: httpx.Client, url: str) -> None:
    assert http.get(f"{url}/tar", params={"path": "/no/such"}).status_code == 404
    assert http.get(f"{url}/tar", params={"path": "/etc/hostname"}).status_code == 400
    assert http.get(f"{url}/tar", params={"path": "/etc", "links": "follow"}).json()["field"] == "links"


@pytest.mark.parametrize(
    "member",
    [
        'i = tarfile.TarInfo("../../etc/cron.d/evil"); out.addfile(i)',
        'i = tarfile.TarInfo("/etc/evil"); out.addfile(i)',
        'i = tarfile.TarInfo("l"); i.type = tarfile.SYMTYPE; i.linkname = "/etc"; out.addfile(i)',
        'i = tarfile.TarInfo("dev"); i.type = tarfile.CHRTYPE; out.addfile(i)',
    ],
)
def test_a_hostile_guests_archive_does_not_reach_its_reader(http: httpx.Client, create: Create, member: str) -> None:
    """The guest's tar is the guest's to replace."""
    guest = create()
    guest.filesystem.write("/usr/bin/tar", HOSTILE.replace("MEMBER", member))
    guest.exec("chmod 755 /usr/bin/tar; mkdir /srv/d", check=True)
    refused = http.get(f"/sandboxes/{guest.id}/fs/tar", params={"path": "/srv/d", "links": "refuse"})
    assert (refused.status_code, refused.json()["field"]) == (400, "member")


def test_a_hostile_member_late_in_an_archive_breaks_it_off(http: httpx.Client, create: Create) -> None:
    guest = create()
    late = 'i = tarfile.TarInfo("big"); i.size = 3000000; out.addfile(i, io.BytesIO(bytes(3000000)))\n'
    late += 'out.addfile(tarfile.TarInfo("../evil"))'
    guest.filesystem.write("/usr/bin/tar", HOSTILE.replace("MEMBER", late))
    guest.exec("chmod 755 /usr/bin/tar; mkdir /srv/d", check=True)
    with pytest.raises(httpx.RemoteProtocolError):
        http.get(f"/sandboxes/{guest.id}/fs/tar", params={"path": "/srv/d"})
    assert guest.exec("echo fine").stdout == "fine\n"


def test_links_that_lead_out_are_left_out_or_refused(http: httpx.Client, sandbox: Sandbox, url: str) -> None:
    sandbox.exec(
        "mkdir -p /srv/links && cd /srv/links && ln -s /usr/bin/python3 out && ln -s in also && echo 1 > in"
        " && mkfifo pipe",
        check=True,
    )
    refused = http.get(f"{url}/tar", params={"path": "/srv/links", "links": "refuse"})
    assert refused.status_code == 400 and "links=skip" in refused.json()["hint"]
    got = http.get(f"{url}/tar", params={"path": "/srv/links"})
    with tarfile.open(fileobj=io.BytesIO(got.content)) as opened:
        assert sorted(set(opened.getnames())) == [".", "also", "in"]
        assert '"pipe"' in opened.getmembers()[-1].pax_headers["comment"]
    assert http.get(f"{url}/tar", params={"path": "/srv/links", "links": "keep"}).json()["field"] == "links"


def test_links_that_lead_out_are_kept_on_the_way_in(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python3").symlink_to("/usr/bin/python3")
    (tmp_path / "bin/zz").write_text("1")
    sandbox.filesystem.upload_tree(tmp_path, "/srv/kept")
    assert sandbox.exec("cd /srv/kept/bin; readlink python3; cat zz").stdout == "/usr/bin/python3\n1"
    assert sorted(sandbox.filesystem.download_tree("/srv/kept", tmp_path / "back")) == ["bin/python3"]
    with pytest.raises(BadRequestError, match="outside"):
        sandbox.filesystem.upload_tree(tmp_path, "/srv/refused", links="refuse")


def test_search(http: httpx.Client, sandbox: Sandbox, url: str) -> None:
    sandbox.exec(
        "mkdir -p '/srv/find/a b' && cd /srv/find && echo 'one needle' > x.py && printf '1\\n2 needle ü\\n'"
        " > 'a b/y.py' && echo needle > z.txt && printf 'needle\\0' > binary "
        " && for i in $(seq 50); do : > f$i.dat; done",
        check=True,
    )
    names = http.get(f"{url}/search", params={"path": "/srv/find", "name": "*.py"}).json()
    assert {each["path"] for each in names["matches"]} == {"/srv/find/x.py", "/srv/find/a b/y.py"}
    assert names["truncated"] is False
    lines = http.get(f"{url}/search", params={"path": "/srv/find", "text": "needle"}).json()["matches"]
    assert sorted((each["path"], each["line"], each["text"]) for each in lines) == [
        ("/srv/find/a b/y.py", 2, "2 needle ü"),
        ("/srv/find/x.py", 1, "one needle"),
        ("/srv/find/z.txt", 1, "needle"),
    ]
    both = http.get(f"{url}/search", params={"path": "/srv/find", "text": "needle", "name": "*.txt"}).json()
    assert [each["path"] for each in both["matches"]] == ["/srv/find/z.txt"]
    some = http.get(f"{url}/search", params={"path": "/srv/find", "name": "*.dat", "limit": 10}).json()
    assert (len(some["matches"]), some["truncated"]) == (10, True)
    assert http.get(f"{url}/search", params={"path": "/srv/find", "text": "no such"}).json()["matches"] == []
    literal = http.get(f"{url}/search", params={"path": "/srv/find", "text": "$(echo needle)"}).json()
    assert literal["matches"] == []
    assert http.get(f"{url}/search", params={"path": "/no/such"}).status_code == 404
    assert http.get(f"{url}/search", params={"path": "/srv", "limit": 0}).status_code == 400
    assert http.get(f"{url}/search", params={"path": "/srv", "text": "a\nb"}).json()["field"] == "text"

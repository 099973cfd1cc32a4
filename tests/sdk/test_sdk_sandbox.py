"""What each method sends and what it makes of the answer."""

from __future__ import annotations

import io
import tarfile
import traceback
import tracemalloc
from pathlib import Path

import pytest

from pandastack import (
    AsyncClient,
    AsyncSandbox,
    Client,
    CommandFailed,
    ExecInterrupted,
    ExecResult,
    FileInfo,
    FileMatch,
    Sandbox,
    SandboxTimeout,
    ServerError,
    get_default_async_client,
    get_default_client,
    set_default_async_client,
    set_default_client,
)
from pandastack.errors import ConnectionError, TooLargeError
from pandastack.sdk._sse import Event, EventDecoder
from pandastack.sdk.wire.call import file_call
from tests.sdk.wire_server import RECORD, Reply, WireServer, sse

HERE = "/v1/sandboxes/0b5f"


def test_create_sends_only_what_was_given(client: Client, wire: WireServer) -> None:
    wire.will(Reply(201, RECORD), Reply(201, RECORD))
    client.sandboxes.create()
    client.sandboxes.create("base", ttl_seconds=0, persistent=True, metadata={"a": "b"}, from_snapshot="s")
    assert [each.json() for each in wire.asked] == [
        {"template": "code-interpreter"},
        {
            "template": "base",
            "ttl_seconds": 0,
            "persistent": True,
            "metadata": {"a": "b"},
            "from_snapshot": "s",
        },
    ]


def test_sizes_are_sent_and_come_back(client: Client, wire: WireServer) -> None:
    wire.will(Reply(201, {**RECORD, "cpu": 2, "memory_mb": 1024}))
    sandbox = client.sandboxes.create("base", cpu=2, memory_mb=1000, disk_gb=20)
    assert wire.asked[0].json() == {"template": "base", "cpu": 2, "memory_mb": 1000, "disk_gb": 20}
    assert (sandbox.cpu, sandbox.memory_mb) == (2, 1024)


def test_the_default_client_is_behind_the_class_methods(client: Client, wire: WireServer) -> None:
    set_default_client(client)
    try:
        wire.will(Reply(201, RECORD), Reply(200, [RECORD]), Reply(200, RECORD))
        assert Sandbox.create("base") == Sandbox.list()[0] == Sandbox.get("0b5f")
        assert get_default_client() is client
    finally:
        set_default_client(None)
    assert wire.lines == ["POST /v1/sandboxes", "GET /v1/sandboxes", f"GET {HERE}"]


async def test_the_waiting_client_does_the_same(async_client: AsyncClient, wire: WireServer) -> None:
    set_default_async_client(async_client)
    wire.will(Reply(201, RECORD), Reply(200, b"png"), Reply(200, {"stdout": "", "stderr": "", "exit_code": 0}))
    wire.will(Reply(200, sse(("stdout", {"chunk": "hi"}), ("exit", {"exit_code": 0}))), Reply(204))
    heard: list[str] = []
    try:
        async with await AsyncSandbox.create("base", ttl_seconds=9) as sandbox:
            assert await sandbox.filesystem.read("/a") == b"png"
            assert (await sandbox.exec("true")).exit_code == 0
            assert await sandbox.exec_stream("echo hi", on_stdout=heard.append) == 0
    finally:
        set_default_async_client(None)
        await async_client.close()
    assert heard == ["hi"]
    assert wire.lines[-1] == f"DELETE {HERE}"


async def test_a_default_client_stays_with_its_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PANDASTACK_API_KEY", "k")
    first = get_default_async_client()
    assert get_default_async_client() is first
    monkeypatch.setattr("pandastack.sdk._async.defaults.async_scope", lambda: object())
    assert get_default_async_client() is not first
    set_default_async_client(None)


def test_leaving_the_block_deletes(sandbox: Sandbox, wire: WireServer) -> None:
    wire.will(Reply(204))
    with sandbox:
        pass
    assert wire.lines == [f"DELETE {HERE}"]
    assert sandbox.status == "deleted"


def test_leaving_the_block_keeps_what_is_persistent(sandbox: Sandbox, wire: WireServer) -> None:
    wire.will(Reply(200, {"persistent": True}))
    with sandbox:
        sandbox.set_persistent(True)
    assert wire.lines == [f"PATCH {HERE}/lifecycle"]


def test_a_sandbox_that_is_gone_already_is_fine(sandbox: Sandbox, wire: WireServer) -> None:
    wire.will(Reply(404, {"error": "gone"}), Reply(404, {"error": "gone"}))
    with sandbox:
        pass
    assert len(wire.asked) == 2


def test_the_blocks_own_error_wins_over_a_failed_delete(sandbox: Sandbox, wire: WireServer) -> None:
    wire.will(Reply(500, {"error": "disk on fire"}), Reply(500, {"error": "disk on fire"}))
    with pytest.raises(KeyError) as caught, sandbox:
        raise KeyError("mine")
    assert "disk on fire" in caught.value.__notes__[0]
    with pytest.raises(ServerError, match="disk on fire"), sandbox:
        pass


def test_refresh_updates_in_place(sandbox: Sandbox, wire: WireServer) -> None:
    wire.will(Reply(200, RECORD | {"status": "paused", "metadata": {"a": "b"}}))
    assert sandbox.refresh() is sandbox
    assert (sandbox.status, sandbox.metadata) == ("paused", {"a": "b"})


def test_lifecycle(sandbox: Sandbox, wire: WireServer) -> None:
    answer = {"ttl_seconds": 7, "persistent": False, "idle_seconds": 0}
    wire.will(Reply(200, answer), Reply(200, answer))
    assert sandbox.set_ttl(7) == sandbox.lifecycle() == answer
    assert wire.asked[0].json() == {"ttl_seconds": 7}


def test_exec(sandbox: Sandbox, wire: WireServer) -> None:
    answer = {"stdout": "o", "stderr": "e\x1b", "exit_code": 3, "duration_ms": 12}
    wire.will(Reply(200, answer), Reply(200, answer), Reply(200, {"exit": 4}))
    assert sandbox.exec("x", timeout_seconds=5) == ExecResult("o", "e\x1b", 3, 12)
    with pytest.raises(CommandFailed, match="status 3") as caught:
        sandbox.exec("x", check=True)
    assert (caught.value.exit_code, caught.value.stdout, caught.value.stderr) == (3, "o", "e\x1b")
    assert "stderr ends with 'e\\x1b'" in "".join(traceback.format_exception(caught.value))
    assert sandbox.commands.run("x", timeout=2) == ExecResult("", "", 4)
    assert [each.json() for each in wire.asked] == [
        {"cmd": "x", "timeout_seconds": 5},
        {"cmd": "x"},
        {"cmd": "x", "timeout_seconds": 2},
    ]


@pytest.mark.parametrize(("language", "known"), [("python", "python"), ("bash", "bash"), ("sh", "bash")])
def test_run_code(sandbox: Sandbox, wire: WireServer, language: str, known: str) -> None:
    wire.will(Reply(200, {"stdout": "o", "stderr": "", "exit_code": 3, "duration_ms": 4}))
    assert sandbox.run_code("print('é')", language) == ExecResult("o", "", 3, 4)
    assert wire.asked[0].json() == {"code": "print('é')", "language": known}


def test_run_code_in_an_unknown_language(sandbox: Sandbox) -> None:
    with pytest.raises(ValueError, match="cobol"):
        sandbox.run_code("x", language="cobol")


def test_exec_stream_hands_out_chunks_in_order(sandbox: Sandbox, wire: WireServer) -> None:
    heard: list[tuple[str, str]] = []
    events = [("stdout", {"chunk": "a"}), ("stderr", {"chunk": "b"}), ("stdout", {"chunk": "\x85\u2028"})]
    wire.will(Reply(200, b": ping\n\n" + sse(*events, ("exit", {"exit_code": 9}))))
    code = sandbox.exec_stream(
        "x",
        on_stdout=lambda text: heard.append(("out", text)),
        on_stderr=lambda text: heard.append(("err", text)),
    )
    assert (code, heard) == (9, [("out", "a"), ("err", "b"), ("out", "\x85\u2028")])


@pytest.mark.parametrize(
    ("message", "kind"), [("command timeout after 1s", SandboxTimeout), ("deadline exceeded", ServerError)]
)
def test_exec_stream_error_event(sandbox: Sandbox, wire: WireServer, message: str, kind: type[Exception]) -> None:
    wire.will(Reply(200, sse(("error", {"error": message}))))
    with pytest.raises(kind, match=message):
        sandbox.exec_stream("x")


@pytest.mark.parametrize(
    "tail",
    [b"", b"event: exit\ndata: {}\n\n", b"event: exit\ndata: nonsense\n\n", b"event: exit\ndata: [0]\n\n"],
)
@pytest.mark.parametrize("cut", [False, True])
def test_a_stream_without_outcome_is_not_a_success(sandbox: Sandbox, wire: WireServer, tail: bytes, cut: bool) -> None:
    wire.will(Reply(200, sse(("stdout", {"chunk": "half"}), ("stderr", {"chunk": "oops"})) + tail, cut=cut))
    with pytest.raises(ExecInterrupted) as caught:
        sandbox.exec_stream("x")
    assert (caught.value.partial_stdout, caught.value.partial_stderr) == ("half", "oops")


def test_partial_output_is_bounded(sandbox: Sandbox, wire: WireServer) -> None:
    chunks = [("stdout", {"chunk": letter * 600_000}) for letter in "abc"]
    wire.will(Reply(200, sse(*chunks)))
    with pytest.raises(ExecInterrupted) as caught:
        sandbox.exec_stream("x")
    assert len(caught.value.partial_stdout) == 1 << 20
    assert caught.value.partial_stdout.endswith("bc"[1] * 600_000)


def test_a_listeners_error_is_its_own(sandbox: Sandbox, wire: WireServer) -> None:
    def fail(chunk: str) -> None:
        raise ServerError("my own timeout")

    wire.will(Reply(200, sse(("stdout", {"chunk": "a"}), ("exit", {"exit_code": 0}))))
    with pytest.raises(ServerError, match="my own"):
        sandbox.exec_stream("x", on_stdout=fail)


def test_event_decoder_takes_any_cut() -> None:
    body = b': ping\n\nevent: stdout\r\ndata: {"a":\ndata:1}\r\n\r\nevent: exit\ndata: \xc2\x85\n\n'
    expected = [Event("stdout", '{"a":\n1}'), Event("exit", "\x85")]
    for size in range(1, len(body) + 1):
        decoder = EventDecoder()
        pieces = [body[at : at + size] for at in range(0, len(body), size)]
        assert [event for piece in pieces for event in decoder.feed(piece)] == expected


def test_files_go_in_and_out(sandbox: Sandbox, wire: WireServer, tmp_path: Path) -> None:
    wire.will(
        Reply(200, {"path": "/a b", "bytes": 2}),
        Reply(200, {"path": "/c", "bytes": 3}),
        Reply(200, b"\x00\xff"),
    )
    (tmp_path / "in").write_bytes(b"\x00\x01\x02")
    assert sandbox.filesystem.write("/a b", "é") == {"path": "/a b", "bytes": 2}
    sandbox.filesystem.upload(tmp_path / "in", "/c")
    sandbox.filesystem.download("/d", tmp_path / "out")
    assert [each.body for each in wire.asked] == ["é".encode(), b"\x00\x01\x02", b""]
    assert (tmp_path / "out").read_bytes() == b"\x00\xff"
    assert wire.lines[0] == f"PUT {HERE}/fs?path=%2Fa+b"


def test_trees_go_in_and_out(sandbox: Sandbox, wire: WireServer, tmp_path: Path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "deep" / "ü").write_text("1")
    wire.will(Reply(200, {"path": "/w", "members": 3, "skipped": 0, "bytes": 1}))
    assert sandbox.filesystem.upload_tree(tmp_path / "in", "/w") == 3
    packed = wire.asked[0].body
    wire.will(Reply(200, packed))
    assert sandbox.filesystem.download_tree("/w", tmp_path / "out") == []
    assert (tmp_path / "out" / "deep" / "ü").read_text() == "1"
    assert wire.lines == [f"PUT {HERE}/fs/tar?path=%2Fw&links=keep", f"GET {HERE}/fs/tar?path=%2Fw&links=skip"]


def test_what_a_tree_had_to_leave_out_is_returned(sandbox: Sandbox, wire: WireServer, tmp_path: Path) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        last = tarfile.TarInfo(".")
        last.type, last.mode = tarfile.DIRTYPE, 0o755
        last.pax_headers = {"comment": 'pandastack {"skipped": 2, "names": ["bin/python3", "pipe"]}'}
        archive.addfile(last)
    wire.will(Reply(200, packed.getvalue()))
    assert sandbox.filesystem.download_tree("/w", tmp_path / "out", links="skip") == ["bin/python3", "pipe"]


def test_a_sandbox_that_never_stops_sending_is_stopped(sandbox: Sandbox, wire: WireServer, tmp_path: Path) -> None:
    files, megabyte = sandbox.filesystem, b"x" * 2**20
    wire.will(*[Reply(200, megabyte, endless=True)] * 4)
    tracemalloc.start()
    for fetch in (
        lambda: files.read("/a", max_bytes=10 * 2**20),
        lambda: files.download("/a", tmp_path / "file", max_bytes=100 * 2**20),
        lambda: files.download_tree("/a", tmp_path / "tree", max_bytes=100 * 2**20),
    ):
        with pytest.raises(TooLargeError, match=r"/a: more than \d+ bytes"):
            fetch()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 40 * 2**20, "what is downloaded waits in a file"
    assert list(tmp_path.iterdir()) == []
    stream = files._pieces(file_call("GET", sandbox.id, "/a"), None)
    assert sum(len(piece) for _, piece in zip(range(50), stream, strict=False)) > 0
    stream.close()


def test_files_of_just_the_size_that_is_allowed(sandbox: Sandbox, wire: WireServer, tmp_path: Path) -> None:
    wire.will(Reply(200, b"12345"), Reply(200, b"12345"), Reply(200, b"1234", cut=True))
    assert sandbox.filesystem.read("/a", max_bytes=5) == b"12345"
    (tmp_path / "file").write_bytes(b"before")
    with pytest.raises(TooLargeError):
        sandbox.filesystem.download("/a", tmp_path / "file", max_bytes=4)
    with pytest.raises(ConnectionError):
        sandbox.filesystem.download("/a", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"before"


def test_changes_and_searches_of_files(sandbox: Sandbox, wire: WireServer) -> None:
    wire.will(*[Reply(200, {"name": "a", "path": "/a", "is_dir": True})] * 4)
    files = sandbox.filesystem
    made = [files.mkdir("/a"), files.mkdir("/a", 0o7), files.move("/b", "/a"), files.chmod("/a", 0o640, recursive=True)]
    assert {each.path for each in made} == {"/a"}
    assert [(each.path.rpartition("/")[2], each.json()) for each in wire.asked] == [
        ("mkdir", {"path": "/a"}),
        ("mkdir", {"path": "/a", "mode": "0007"}),
        ("move", {"from": "/b", "to": "/a", "overwrite": False}),
        ("chmod", {"path": "/a", "mode": "0640", "recursive": True}),
    ]
    wire.will(Reply(200, {"matches": [{"path": "/x", "line": 2, "text": "t"}, {"path": "/y"}]}))
    assert files.search("/w", text="t") == [FileMatch("/x", 2, "t"), FileMatch("/y")]
    assert wire.lines[-1] == f"GET {HERE}/fs/search?path=%2Fw&name=%2A&limit=1000&text=t"


def test_listdir_and_stat_build_paths(sandbox: Sandbox, wire: WireServer) -> None:
    wire.will(Reply(200, {"path": "/w", "entries": [{"name": "a", "is_dir": True, "size": 4, "mtime": 5}]}))
    wire.will(Reply(200, {"path": "/w", "entries": None}), Reply(200, {"name": "w", "is_dir": True}))
    assert sandbox.filesystem.listdir("/w") == [FileInfo("a", "/w/a", True, 4, "", 5)]
    assert sandbox.filesystem.listdir("/w") == []
    assert sandbox.filesystem.stat("/w").path == "/w"


def test_exists(sandbox: Sandbox, wire: WireServer) -> None:
    missing = Reply(404, {"error": "no such file"})
    wire.will(Reply(200, {"name": "a", "is_dir": False}), missing, missing)
    assert [sandbox.filesystem.exists("/a"), sandbox.filesystem.exists("/b")] == [True, False]


def test_walk_is_top_down(sandbox: Sandbox, wire: WireServer) -> None:
    def directory(*names: str) -> Reply:
        return Reply(200, {"entries": [{"name": name.strip("/"), "is_dir": name[-1] == "/"} for name in names]})

    wire.will(directory("a/", "b/", "f"), directory("c/"), directory(), directory("g"))
    seen = [(path, [d.name for d in dirs], [f.name for f in files]) for path, dirs, files in sandbox.filesystem.walk()]
    assert seen == [("/", ["a", "b"], ["f"]), ("/a", ["c"], []), ("/a/c", [], []), ("/b", [], ["g"])]


def test_templates(client: Client, wire: WireServer) -> None:
    record = {"name": "base", "cpu": 1, "memory_mb": 256, "tools": ["git"], "unheard_of": 1}
    wire.will(Reply(200, {"items": [record]}), Reply(200, record), Reply(204))
    assert client.templates.list() == [client.templates.get("base")]
    client.templates.delete("a b")
    assert wire.lines == ["GET /v1/templates", "GET /v1/templates/base", "DELETE /v1/templates/a%20b"]


def test_lists_are_narrowed_by_the_server(client: Client, wire: WireServer) -> None:
    wire.will(Reply(200, [RECORD]), Reply(200, []), Reply(200, {"processes": [], "retention": {}}))
    assert [each.id for each in client.sandboxes.list(status="running", metadata={"a.b": "c d"})] == [RECORD["id"]]
    assert client.sandboxes.list(status=["paused", "failed"]) == []
    assert Sandbox.from_dict(RECORD, client).processes.list(status="exited") == []
    assert wire.lines == [
        "GET /v1/sandboxes?metadata.a.b=c+d&status=running",
        "GET /v1/sandboxes?status=paused&status=failed",
        "GET /v1/sandboxes/0b5f/processes?status=exited",
    ]


def test_iterate_asks_for_a_page_when_it_needs_one(client: Client, wire: WireServer) -> None:
    def page(*ids: str, cursor: str = "") -> Reply:
        return Reply(200, [RECORD | {"id": each} for each in ids], {"X-Next-Cursor": cursor} if cursor else {})

    wire.will(page("a", "b", cursor="c1"))
    found = client.sandboxes.iterate(status="running", page_size=2)
    assert [next(found).id, next(found).id] == ["a", "b"]
    assert len(wire.asked) == 1
    wire.will(page("c"))
    assert [each.id for each in found] == ["c"]
    assert wire.lines[1] == "GET /v1/sandboxes?status=running&limit=2&cursor=c1"
    wire.will(Reply(200, {"snapshots": [{"id": "s"}]}, {"X-Next-Cursor": "c2"}), Reply(200, {"snapshots": []}))
    assert [each["id"] for each in client.snapshots.iterate(sandbox_id="0b5f")] == ["s"]
    assert wire.lines[3] == "GET /v1/snapshots?sandbox_id=0b5f&limit=100&cursor=c2"

"""The process of a function, run here as it runs in a guest."""

from __future__ import annotations

import base64
import http.server
import json
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from pandastack.in_guest import function_programs
from tests.support.function_process import Process, begun
from tests.support.tls import make_certificate


class Greeter(http.server.BaseHTTPRequestHandler):
    """Says hello."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


Deploy = Callable[..., Process]


@pytest.fixture(params=["python", "nodejs"])
def runtime(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name == "nodejs" and shutil.which("node") is None:
        pytest.skip("this host has no node")
    return name


@pytest.fixture
def deploy(tmp_path: Path) -> Iterator[Deploy]:
    with ExitStack() as stack:

        def deploy(source: str, runtime: str = "python", file: str = "", name: str | None = None) -> Process:
            return begun(stack, tmp_path / f"f{len(list(tmp_path.iterdir()))}", source, runtime, file, name)

        yield deploy


HANDLERS = {
    "python": "import sys\ndef handler(event, context):\n"
    "    print('out'); print('err', file=sys.stderr)\n"
    "    import os\n"
    "    return {'event': event, 'key': os.environ['KEY'], 'run': context.run_id}\n",
    "nodejs": "exports.handler = async (event, context) => {\n  console.log('out'); console.error('err');\n"
    "  return { event, key: process.env.KEY, run: context.runId };\n};\n",
}
FAILING = {
    "python": "def handler(event, context):\n    return deeper()\ndef deeper():\n    return 1 / 0\n",
    "nodejs": "exports.handler = () => deeper();\nfunction deeper() { throw new TypeError('no'); }\n",
}
ENDLESS = {
    "python": "def handler(event, context):\n    while True: pass\n",
    "nodejs": "exports.handler = () => new Promise(() => {});\n",
}
SCRIPTS = {
    "python": "import os, sys\nprint(sys.stdin.read() + os.environ['KEY'])\nprint(os.environ['PANDASTACK_INPUT'])\n",
    "nodejs": "const fs = require('fs');\nconsole.log(fs.readFileSync(0, 'utf8') + process.env.KEY);\n"
    "console.log(process.env.PANDASTACK_INPUT);\n",
}
BROKEN = {
    "python": "import nothere\ndef handler(event, context): pass\n",
    "nodejs": "require('nothere');\nexports.handler = 1;\n",
}
MALFORMED = {"python": "def handler(:\n", "nodejs": "exports.handler = (;\n"}
CYCLIC = {
    "python": "def handler(event, context):\n    a = []\n    a.append(a)\n    return a\n",
    "nodejs": "exports.handler = () => { const a = []; a.push(a); return a; };\n",
}
LEAVING = {
    "python": "import os\ndef handler(event, context):\n    os._exit(3)\n",
    "nodejs": "exports.handler = () => process.reallyExit(3);\n",
}


def test_a_handler(deploy: Deploy, runtime: str) -> None:
    made = deploy(HANDLERS[runtime], runtime)
    assert made.report == {"kind": "handler"}
    answer = made.call({"n": 1})
    assert answer is not None and answer["status"] == "success", answer
    assert json.loads(answer["result"]) == {"event": {"n": 1}, "key": "value", "run": "r"}
    assert (answer["stdout"], answer["stderr"]) == ("out\n", "err\n")
    assert answer["peak_memory_mb"] > 1 and answer["cpu_seconds"] >= 0


def test_a_handler_that_fails_says_where(deploy: Deploy, runtime: str) -> None:
    made = deploy(FAILING[runtime], runtime)
    answer = made.call()
    assert answer is not None and (answer["status"], answer["exit_code"]) == ("error", 1)
    assert "deeper" in answer["traceback"] and "runtime." not in answer["traceback"]
    again = made.call()
    assert again is not None and again["status"] == "error"


def debugged(made: Process, typed: str) -> str:
    """What the program for people shows, which joins their terminal to the process."""
    argv = [sys.executable, str(made.root / "programs" / "pandastack_debug.py"), str(made.root / "s")]
    return subprocess.run(argv, input=typed, capture_output=True, text=True, timeout=60).stdout


def test_a_failed_call_can_be_debugged_where_it_failed(deploy: Deploy) -> None:
    made = deploy(
        "def handler(event, context):\n    local = event * 2\n    return deeper(local)\n"
        "def deeper(n):\n    return 1 / n\n"
    )
    assert "has no failed call" in debugged(made, "")
    made.call(0)
    assert "has no failed call" in debugged(made, ""), "only a call that was to be kept"
    made.call(0, keep=True)
    said = debugged(made, "p n\nup\np 'local', local, event\nq\n")
    assert said.startswith("ZeroDivisionError: ") and "\n(Pdb) 0\n" in said and "('local', 0, 0)" in said
    assert "(Pdb) 0\n" in debugged(made, "p n\n"), "again, also after a terminal that was closed"
    late = deploy("def handler(event, context):\n    n = 7\n    while True: pass\n")
    late.call(seconds=0.2, keep=True)
    assert "(Pdb) 7\n" in debugged(late, "p n\nq\n")


def test_time_is_limited(deploy: Deploy, runtime: str) -> None:
    answer = deploy(ENDLESS[runtime], runtime).call(seconds=0.2)
    assert answer is not None and answer["status"] == "timeout"


def test_a_script(deploy: Deploy, runtime: str) -> None:
    made = deploy(SCRIPTS[runtime], runtime)
    assert made.report == {"kind": "script"}
    answer = made.call({"a": 1})
    assert answer is not None and (answer["status"], answer["exit_code"]) == ("success", 0), answer
    assert [json.loads(each.replace("value", "")) for each in answer["body"].splitlines()] == [{"a": 1}] * 2
    given = made.call({"a": 1}, body="hello ")
    assert given is not None and given["body"].startswith("hello value\n")
    failing = {"python": "raise SystemExit(7)\n", "nodejs": "process.exit(7);\n"}[runtime]
    answer = deploy(failing, runtime).call()
    assert answer is not None and (answer["status"], answer["exit_code"]) == ("error", 7)
    slow = {"python": "import time\ntime.sleep(600)\n", "nodejs": "setTimeout(() => {}, 600000);\n"}[runtime]
    answer = deploy(slow, runtime).call(seconds=0.2)
    assert answer is not None and answer["status"] == "timeout"


@pytest.mark.parametrize("sources", [BROKEN, MALFORMED], ids=["import", "syntax"])
def test_what_does_not_import_is_reported(deploy: Deploy, runtime: str, sources: dict[str, str]) -> None:
    report = deploy(sources[runtime], runtime).report
    assert "kind" not in report and report["error"] and report["traceback"]


def test_what_is_no_json_is_an_error(deploy: Deploy, runtime: str) -> None:
    answer = deploy(CYCLIC[runtime], runtime).call()
    assert answer is not None and answer["status"] == "error" and "not JSON" in answer["error"]


def test_a_process_that_leaves_answers_nothing(deploy: Deploy, runtime: str) -> None:
    assert deploy(LEAVING[runtime], runtime).call() is None


def request(method: str = "POST", path: str = "/a%20b", body: str = "") -> dict[str, Any]:
    return {
        "version": "2.0",
        "rawPath": path,
        "rawQueryString": "x=1",
        "headers": {"host": "h", "x-given": "yes"},
        "cookies": ["c=1", "d=2"],
        "requestContext": {"http": {"method": method, "path": path, "sourceIp": "192.0.2.1"}},
        "body": body,
        "isBase64Encoded": False,
    }


def answered(made: Process, event: Any) -> tuple[int, dict[str, str], str]:
    answer = made.call(event)
    assert answer is not None and answer["status"] == "success", answer
    result = json.loads(answer["result"])
    body = base64.b64decode(result["body"]).decode()
    return result["statusCode"], {name.lower(): text for name, text in result["headers"]}, body


def test_wsgi(deploy: Deploy) -> None:
    made = deploy(
        "def app(environ, start_response):\n"
        "    start_response('201 Created', [('X-Seen', environ['HTTP_X_GIVEN'])])\n"
        "    parts = environ['REQUEST_METHOD'], environ['PATH_INFO'], environ['QUERY_STRING'], environ['HTTP_COOKIE']\n"
        "    return ['|'.join(parts).encode(), environ['wsgi.input'].read()]\n"
    )
    assert made.report == {"kind": "wsgi"}
    assert answered(made, request(body="!")) == (201, {"x-seen": "yes"}, "POST|/a b|x=1|c=1; d=2!")


def test_asgi_is_started_once(deploy: Deploy) -> None:
    made = deploy(
        "async def app(scope, receive, send):\n"
        "    if scope['type'] == 'lifespan':\n"
        "        await receive()\n"
        "        scope['state']['ready'] = 'started'\n"
        "        await send({'type': 'lifespan.startup.complete'})\n"
        "        await receive()\n"
        "    body = (await receive())['body']\n"
        "    headers = [(b'x-path', scope['path'].encode())]\n"
        "    await send({'type': 'http.response.start', 'status': 200, 'headers': headers})\n"
        "    await send({'type': 'http.response.body', 'body': scope['state']['ready'].encode() + body})\n"
    )
    assert made.report == {"kind": "asgi"}
    assert answered(made, request(body="!")) == (200, {"x-path": "/a b"}, "started!")
    assert answered(made, {"plain": 1}) == (200, {"x-path": "/"}, 'started{"plain": 1}')


def test_fastapi(deploy: Deploy) -> None:
    made = deploy(
        "from fastapi import FastAPI\napp = FastAPI()\n"
        "@app.get('/items/{n}')\ndef item(n: int, x: int): return {'n': n, 'x': x}\n"
    )
    status, headers, body = answered(made, request("GET", "/items/7"))
    assert (status, headers["content-type"], json.loads(body)) == (200, "application/json", {"n": 7, "x": 1})


def test_a_fetch_handler(deploy: Deploy) -> None:
    if shutil.which("node") is None:
        pytest.skip("this host has no node")
    made = deploy(
        "export default { async fetch(request) {\n"
        "  const body = `${request.method}|${new URL(request.url).pathname}|${await request.text()}`;\n"
        "  return new Response(body, { status: 201, headers: { 'x-seen': request.headers.get('x-given') } });\n} };\n",
        "nodejs",
        "handler.mjs",
    )
    assert made.report == {"kind": "fetch"}
    status, headers, body = answered(made, request(body="!"))
    assert (status, headers["x-seen"], body) == (201, "yes", "POST|/a%20b|!")


def test_named_and_asynchronous(deploy: Deploy) -> None:
    made = deploy("async def main(event, context):\n    return [event]\n", name="main")
    answer = made.call(3)
    assert answer is not None and answer["result"] == "[3]"
    assert "no function" in deploy("x = 1\n", name="main").report["error"]


def test_a_handler_of_numbers(deploy: Deploy) -> None:
    pytest.importorskip("numpy")
    made = deploy(
        "import numpy\ndef handler(event, context):\n    return {'n': numpy.int64(3), 'a': numpy.arange(2)}\n"
    )
    answer = made.call()
    assert answer is not None and json.loads(answer["result"]) == {"n": 3, "a": [0, 1]}


def checked(made: Process) -> dict[str, Any]:
    """What a copy says of itself."""
    answer = made.call(check=str(made.root / "fn"))
    assert answer is not None
    return answer


DRAWING = {
    "python": "import random, secrets, ssl, uuid\ndef handler(event, context): raise SystemExit(9)\n",
    "nodejs": "exports.handler = () => process.reallyExit(9);\n",
}
SEEDED = {
    "python": DRAWING["python"] + "random.random = lambda: 0.5\n",
    "nodejs": "Math.random = () => 0.5;\n" + DRAWING["nodejs"],
}
REPEATED = {"python": "random.random", "nodejs": "Math.random"}


def test_a_check_draws_from_every_generator_and_runs_no_handler(deploy: Deploy, runtime: str) -> None:
    made = deploy(DRAWING[runtime], runtime)
    first, second = checked(made)["draws"], checked(made)["draws"]
    expected = {
        "python": {"os.urandom", "random", "secrets", "uuid.uuid1", "uuid.uuid4", "ssl.RAND_bytes", REPEATED["python"]},
        "nodejs": {"crypto.randomBytes", "crypto.randomUUID", "crypto.getRandomValues", REPEATED["nodejs"]},
    }[runtime]
    assert expected <= first.keys() == second.keys()
    assert not {name for name, drawn in first.items() if second[name] == drawn}
    seeded = deploy(SEEDED[runtime], runtime)
    first, second = checked(seeded)["draws"], checked(seeded)["draws"]
    assert {name for name, drawn in first.items() if second[name] == drawn} == {REPEATED[runtime]}


def test_a_check_bears_modules_that_are_not_what_they_are_called(deploy: Deploy) -> None:
    source = (
        "import sys, types\nsys.modules['secrets'] = types.ModuleType('secrets')\n"
        "sys.modules['odd'] = 7\nsys.modules['lazy'] = type('Lazy', (), {'__getattr__': lambda self, name: 1 / 0})()\n"
        "def handler(event, context): pass\n"
    )
    made = deploy(source)
    assert "secrets" not in checked(made)["draws"] and checked(made)["values"] == {}
    answer = made.call()
    assert answer is not None and answer["status"] == "success"


def test_a_check_tells_what_looks_unique(deploy: Deploy) -> None:
    source = (
        "import random, uuid\nfrom uuid import UUID\n"
        "ID, TEXT, RNG, NUMBER = uuid.uuid4(), str(uuid.uuid4()), random.Random(4), 12\n"
        "CONSTANT = 'cf23df2207d99a74fbe169e3eba035e633b65d94'\nraw = uuid.uuid4().bytes\n"
        "def handler(event, context): pass\n"
    )
    made = deploy(source)
    first, second = checked(made)["values"], checked(made)["values"]
    assert set(first) == {f"handler.{name}" for name in ("ID", "TEXT", "RNG", "raw")}
    assert first["handler.ID"] == second["handler.ID"] and first["handler.RNG"] != second["handler.RNG"]
    assert all(len(each) == 32 for each in first.values()), "digests, not the values"


def test_a_check_tells_what_a_module_of_node_exports(deploy: Deploy) -> None:
    if shutil.which("node") is None:
        pytest.skip("this host has no node")
    source = (
        "const id = require('crypto').randomUUID();\n"
        "module.exports = { handler: () => id, id, constant: 'cf23df2207d99a74fbe169e3eba035e633b65d94' };\n"
    )
    assert set(checked(deploy(source, "nodejs"))["values"]) == {"handler.js: id"}


def test_connections_that_are_open_at_the_capture_are_reported(deploy: Deploy, runtime: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        source = {
            "python": f"import socket\nopen_ = socket.create_connection(('127.0.0.1', {port}))\n"
            "listening = socket.create_server(('127.0.0.1', 0))\ndef handler(event, context): pass\n",
            "nodejs": "const s = require('net');\n"
            f"const c = s.connect({port}, '127.0.0.1');\n"
            "exports.handler = () => {};\n",
        }[runtime]
        report = deploy(source, runtime).report
    if runtime == "python":  # Node connects once it has loaded the module
        assert report["sockets"] == [f"tcp to 127.0.0.1:{port}"]
    else:
        assert report.get("sockets", [f"tcp to 127.0.0.1:{port}"]) == [f"tcp to 127.0.0.1:{port}"]


TRUSTING = {
    "python": "import ssl, urllib.request\ndef handler(event, context):\n"
    "    return urllib.request.urlopen(event).read().decode()\n",
    "nodejs": "const https = require('https');\nexports.handler = async (event) => {\n"
    "  const read = (done, no) => https.get(event, (answer) => {\n"
    "    let text = ''; answer.on('data', (piece) => (text += piece)); answer.on('end', () => done(text));\n"
    "  }).on('error', no);\n"
    "  return [await new Promise(read), await (await fetch(event)).text()].join('|');\n};\n",
}


def test_a_run_trusts_what_its_variables_name_though_its_process_began_without(
    deploy: Deploy, runtime: str, tmp_path: Path
) -> None:
    """As the broker's authority is named by the variables of a run with secrets."""
    context = make_certificate(tmp_path, "localhost")
    with http.server.HTTPServer(("127.0.0.1", 0), Greeter) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            made = deploy(TRUSTING[runtime], runtime)
            url = f"https://localhost:{server.server_port}/"
            distrusting = made.call(url, env={})
            assert distrusting is not None and distrusting["status"] == "error" and "cert" in str(distrusting)
            variable = {"python": "SSL_CERT_FILE", "nodejs": "NODE_EXTRA_CA_CERTS"}[runtime]
            answer = made.call(url, env={variable: str(tmp_path / "server.pem")})
            assert answer is not None and answer["status"] == "success", answer
            assert answer["result"] in ('"hello"', '"hello|hello"')
        finally:
            server.shutdown()
            thread.join()


def test_the_programs_are_all_there() -> None:
    ours = {f"pandastack_{name}.py" for name in ("check", "debug", "frames", "web")}
    assert set(function_programs("python")) == {"runtime.py", *ours}
    assert set(function_programs("nodejs")) == {"runtime.mjs"}


STREAMS = {
    "wsgi": "import os, time\n"
    "def app(environ, start_response):\n"
    "    write = start_response('200 OK', [('X-A', 'b')])\n"
    "    if environ['PATH_INFO'] == '/list': return [b'a', b'b']\n"
    "    if environ['PATH_INFO'] == '/none': return iter(())\n"
    "    return pieces()\n"
    "def pieces():\n"
    "    yield b'first'\n"
    "    while not os.path.exists('go'): time.sleep(0.01)\n"
    "    yield b''\n"
    "    yield b'x' * 100_000\n"
    "    while os.path.exists('stay'): pass\n"
    "    raise ValueError('no')\n",
    "asgi": "import asyncio, os\n"
    "async def app(scope, receive, send):\n"
    "    if scope['type'] == 'lifespan': raise RuntimeError\n"
    "    await send({'type': 'http.response.start', 'status': 200, 'headers': [(b'x-a', b'b')]})\n"
    "    if scope['path'] == '/list': return await send({'type': 'http.response.body', 'body': b'ab'})\n"
    "    if scope['path'] == '/none': return await send({'type': 'http.response.body'})\n"
    "    await send({'type': 'http.response.body', 'body': b'first', 'more_body': True})\n"
    "    while not os.path.exists('go'): await asyncio.sleep(0.01)\n"
    "    await send({'type': 'http.response.body', 'body': b'x' * 100_000, 'more_body': True})\n"
    "    while os.path.exists('stay'): pass\n"
    "    raise ValueError('no')\n",
    "fetch": "const fs = require('fs');\n"
    "exports.fetch = async (request) => {\n"
    "  const headers = { 'x-a': 'b' }, path = new URL(request.url).pathname;\n"
    "  if (path === '/list') return new Response('ab', { headers });\n"
    "  if (path === '/none') return new Response(null, { headers });\n"
    "  return new Response(new ReadableStream({ async start(out) {\n"
    "    out.enqueue(Buffer.from('first'));\n"
    "    while (!fs.existsSync('go')) await new Promise((done) => setTimeout(done, 10));\n"
    "    out.enqueue(Buffer.alloc(100_000, 'x'));\n"
    "    if (!fs.existsSync('stay')) out.error(new Error('no'));\n"
    "  } }), { headers });\n"
    "};\n",
}


@pytest.fixture(params=list(STREAMS))
def streaming(request: pytest.FixtureRequest, deploy: Deploy) -> Process:
    if request.param == "fetch" and shutil.which("node") is None:
        pytest.skip("this host has no node")
    return deploy(STREAMS[request.param], "nodejs" if request.param == "fetch" else "python")


def head_of(frame: bytes) -> dict[str, Any]:
    assert frame[0] == 1
    made: dict[str, Any] = json.loads(frame[1:])
    return {**made, "headers": {name.lower(): text for name, text in made["headers"]}}


def test_an_answer_in_pieces(streaming: Process) -> None:
    go = streaming.root / "fn" / "go"
    with streaming.called(request("GET", "/"), stream=True) as frames:
        head = head_of(next(frames))
        assert (head["statusCode"], head["headers"]["x-a"]) == (200, "b") and "content-length" not in head["headers"]
        assert next(frames) == b"\0first", "it is there before the next piece is made"
        go.touch()
        pieces = []
        while (frame := next(frames))[0] == 0:
            assert len(frame) <= 65537
            pieces.append(frame[1:])
        assert b"".join(pieces) in (b"x" * 100_000, b""), "a broken stream of fetch may lose what waits in it"
        last = json.loads(frame)
        assert (last["status"], "no" in last["error"], "result" in last) == ("error", True, False)


def test_whole_answers_have_their_length(streaming: Process) -> None:
    for path, length, body in (("/list", "2", b"ab"), ("/none", "0", b"")):
        with streaming.called(request("GET", path), stream=True) as frames:
            head, *pieces, last = frames
        if streaming.report["kind"] != "asgi":  # its head may have been sent before
            assert head_of(head)["headers"]["content-length"] == length
        assert b"".join(each[1:] for each in pieces) == body
        assert json.loads(last)["status"] == "success"


def test_time_ends_between_two_frames(streaming: Process) -> None:
    (streaming.root / "fn" / "go").touch()
    (streaming.root / "fn" / "stay").touch()
    with streaming.called(request("GET", "/"), stream=True, seconds=0.5) as frames:
        *pieces, last = frames
    assert json.loads(last)["status"] == "timeout"
    assert b"".join(each[1:] for each in pieces[1:]) == b"first" + b"x" * 100_000


def test_head_has_no_length_of_ours(streaming: Process) -> None:
    with streaming.called(request("HEAD", "/list"), stream=True) as frames:
        head, *_ = frames
    assert "content-length" not in head_of(head)["headers"]

"""Sessions of code in real sandboxes: what cells give, what they survive, and what copies have of them."""

from __future__ import annotations

import base64
import concurrent.futures
import json
import subprocess
from collections.abc import Iterator

import httpx
import pytest

from pandastack import BadRequestError, Client, CodeContext, NotFoundError, Sandbox, SandboxTimeout
from pandastack.errors import QuotaError
from tests.support.installation import Create, Server

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def home(client: Client) -> Iterator[Sandbox]:
    with client.sandboxes.create("code-interpreter", ttl_seconds=3600) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def context(home: Sandbox) -> Iterator[CodeContext]:
    with home.create_code_context() as context:
        yield context


def value(context: CodeContext, code: str) -> str | None:
    ran = context.run_code(code, timeout_seconds=60)
    assert ran.error is None, ran.error
    return ran.text


def test_state_stays_and_a_value_is_shown(context: CodeContext) -> None:
    ran = context.run_code("x = 41\nprint('to see')\nx + 1")
    assert (ran.stdout, ran.text, ran.exit_code, ran.error) == ("to see\n", "42", 0, None)
    ran = context.run_code("import sys; print(x, file=sys.stderr); None")
    assert (ran.stderr, ran.results) == ("41\n", [])
    assert value(context, "await __import__('asyncio').sleep(0, 'awaited')") == "'awaited'"


def test_an_exception_is_a_traceback_and_the_state_stays(context: CodeContext) -> None:
    ran = context.run_code("kept = 1\n1/0")
    assert ran.exit_code == 1 and ran.error is not None
    assert "ZeroDivisionError" in ran.error and "\x1b" not in ran.error
    assert value(context, "kept") == "1"
    assert "SyntaxError" in (context.run_code("def f(:").error or "")
    assert "input" in (context.run_code("input('?')").error or "")


def test_what_programs_print_that_a_cell_starts(context: CodeContext) -> None:
    ran = context.run_code("import os; code = os.system('echo out; echo err >&2')")
    assert (ran.stdout, ran.stderr) == ("out\n", "err\n")


def test_a_table_is_markup_and_text(context: CodeContext) -> None:
    (table,) = context.run_code("import pandas as pd; pd.DataFrame({'a': [1, 2]})", timeout_seconds=60).results
    assert table.html is not None and "<table" in table.html
    assert table.text is not None and table.text.split() == ["a", "0", "1", "1", "2"]


def test_figures_are_pictures_with_their_data(context: CodeContext) -> None:
    code = (
        "import matplotlib.pyplot as plt\n"
        "plt.plot([1, 2, 3], [4.0, 5.0, float('nan')], label='line'); plt.title('One'); plt.xlabel('x'); plt.show()\n"
        "fig, (left, right) = plt.subplots(1, 2)\n"
        "bars = left.bar(['a', 'b'], [3, 4]); dots = right.scatter([1], [2])"
    )
    first, second = context.run_code(code, timeout_seconds=120).results
    for each in (first, second):
        assert each.png is not None and base64.b64decode(each.png).startswith(PNG)
    (line,) = first.chart_data["axes"]
    assert (line["type"], line["title"], line["x_label"]) == ("line", "One", "x")
    assert line["series"] == [{"label": "line", "x": [1.0, 2.0, 3.0], "y": [4.0, 5.0, None], "total": 3}]
    left, right = second.chart_data["axes"]
    assert (left["type"], left["series"][0]["x"], left["series"][0]["y"]) == ("bar", ["a", "b"], [3.0, 4.0])
    assert (right["type"], right["series"][0]["x"]) == ("scatter", [1.0])


def test_rich_objects(context: CodeContext) -> None:
    code = "from IPython.display import *; display(HTML('<b>'), Markdown('*m*'), JSON({'a': [1]}), SVG('<svg/>'))"
    html, markdown, data, drawing = context.run_code(code).results
    assert (html.html, markdown.markdown, data.json) == ("<b>", "*m*", {"a": [1]})
    assert drawing.svg is not None and "<svg" in drawing.svg
    assert context.run_code("h = display(1, display_id=True); h.update(2)").text == "2"


def test_a_cell_over_its_time_is_interrupted_and_the_state_stays(context: CodeContext) -> None:
    value(context, "alive = 'yes'")
    for cell in (
        "while True: pass",
        "import time; time.sleep(60)",
        "import subprocess; subprocess.run(['sleep', '60'])",
    ):
        with pytest.raises(SandboxTimeout, match="cell timeout after 1s"):
            context.run_code(cell, timeout_seconds=1)
    assert value(context, "alive") == "'yes'"


def test_an_interrupt(context: CodeContext) -> None:
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(context.run_code, "print('begun', flush=True)\nwhile True: pass", 60)
        while not context.interrupt():
            pass
        assert "KeyboardInterrupt" in (running.result().error or "")
    assert context.interrupt() is False
    assert value(context, "1") == "1"


def test_output_is_bounded(context: CodeContext) -> None:
    ran = context.run_code("print('y' * 3_000_000); '🐼' * 3_000_000", timeout_seconds=60)
    assert len(ran.stdout) < 1 << 21 and "bytes dropped]" in ran.stdout[-100:]
    dropped = "[pandastack: the results were dropped", "[pandastack: a result of 3000002 characters was dropped"
    assert (ran.text or "").startswith(dropped) or len(ran.text or "") == 3000002


def test_variables(context: CodeContext) -> None:
    value(context, "import numpy; a = numpy.zeros((3, 2)); t = pd.DataFrame({'c': [1]}); s = 'x' * 9999; _h = 1")
    found = {each["name"]: each for each in context.variables()}
    assert (found["a"]["type"], found["a"]["shape"]) == ("ndarray", [3, 2])
    assert (found["t"]["type"], found["t"]["shape"], found["t"]["repr"]) == ("DataFrame", [1, 1], "columns: c")
    assert found["s"]["shape"] == [9999] and len(found["s"]["repr"]) <= 200
    assert not {"numpy", "_h", "In", "Out", "get_ipython"} & set(found)


def test_an_interpreter_that_dies_is_replaced(home: Sandbox) -> None:
    with home.create_code_context() as context:
        value(context, "x = 1")
        ran = context.run_code("import os; os.kill(os.getpid(), 9)", timeout_seconds=60)
        assert ran.restarted and ran.error is not None and ran.exit_code == 1
        assert "NameError" in (context.run_code("x", timeout_seconds=60).error or "")


def test_cells_of_one_session_take_turns_and_sessions_do_not(home: Sandbox) -> None:
    with home.create_code_context() as one, home.create_code_context() as other:
        for each in (one, other):
            value(each, "import time; log = []")
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            code = "log.append('in'); time.sleep(0.3); log.append('out')"
            list(pool.map(lambda each: each.run_code(code), [one, one, one, other]))
        assert value(one, "log") == str(["in", "out"] * 3)
        assert value(other, "log") == str(["in", "out"])


def test_no_more_than_eight(create: Create) -> None:
    sandbox = create("code-interpreter")
    opened = [sandbox.create_code_context("bash") for _ in range(8)]
    with pytest.raises(QuotaError, match="8"):
        sandbox.create_code_context("bash")
    assert {each.id for each in sandbox.code_contexts()} == {each.id for each in opened}
    opened[0].close()
    with pytest.raises(NotFoundError):
        opened[0].run_code("true")
    assert sandbox.create_code_context().run_code("1 + 1", timeout_seconds=60).text == "2"


def test_a_copy_has_the_sessions_as_they_were(create: Create) -> None:
    parent = create("code-interpreter", persistent=True)
    context = parent.create_code_context()
    value(context, "import random, numpy; x = 'then'; random.random(), numpy.random.random()")
    child = parent.fork()
    try:
        copy = CodeContext(child, context.id)
        assert [each.id for each in child.code_contexts()] == [context.id]
        value(context, "x = 'later'")
        assert (value(copy, "x"), value(context, "x")) == ("'then'", "'later'")
        draws = [value(each, "random.random(), numpy.random.random(), random.gauss(0, 1)") for each in (context, copy)]
        assert len(set(draws)) == 2
    finally:
        child.kill()
    parent.hibernate()
    assert value(context, "x") == "'later'"


def test_two_sandboxes_of_one_template_draw_differently(create: Create) -> None:
    """Their kernels were one process until a moment ago."""
    contexts = [create("code-interpreter").create_code_context() for _ in range(2)]
    draw = "import random, numpy, uuid; random.random(), numpy.random.rand(), uuid.uuid4()"
    drawn = [str(value(each, draw)).strip("()").split(", ") for each in contexts]
    assert not set(drawn[0]) & set(drawn[1])


def test_a_notebook_can_be_forked_after_any_cell(http: httpx.Client, create: Create) -> None:
    sandbox = create("code-interpreter")
    context = sandbox.create_code_context()
    kept = [context.run_code_and_checkpoint(f"x = {n}", timeout_seconds=60).checkpoint_id for n in range(3)]
    labels = [each.label for each in sandbox.timeline()]
    assert labels == ["cell 1: x = 0", "cell 2: x = 1", "cell 3: x = 2"]
    made = http.post(f"/sandboxes/{sandbox.id}/checkpoints/{kept[1]}/fork").json()
    try:
        ran = http.post(f"/sandboxes/{made['id']}/repl/sessions/{context.id}/run", json={"code": "x"}).json()
        assert (ran["results"], ran["cells"]) == ([{"text/plain": "1"}], 3)
    finally:
        http.delete(f"/sandboxes/{made['id']}")
    sandbox.rewind(str(kept[0]))
    assert value(context, "x") == "0"


def test_the_first_session_waits_for_nothing(http: httpx.Client, create: Create) -> None:
    """It has an interpreter that was running before the sandbox was made."""
    sandbox = create("code-interpreter")
    context = sandbox.create_code_context()
    code = (
        "import os, sys; os.stat('/proc/self').st_ino, all(m in sys.modules for m in ('pandas', 'matplotlib.pyplot'))"
    )
    assert str(value(context, code)).endswith("True)")
    started = "import os; os.path.getmtime(f'/proc/{os.getpid()}') < os.path.getmtime('/run/pandastack/generation')"
    assert value(context, started) in ("True", "False")
    ticks = value(context, "int(open('/proc/self/stat').read().rsplit(') ', 1)[1].split()[19])")
    booted = sandbox.exec("cut -d' ' -f22 /proc/self/stat", check=True).stdout
    assert int(str(ticks)) < int(booted) - 200, "the kernel started seconds before the first command"


def test_one_piece_of_code_in_any_template(http: httpx.Client, create: Create) -> None:
    url = f"/sandboxes/{create().id}/repl"
    ran = http.post(url, json={"code": "import sys\nprint('hi')\nsys.exit(3)"}).json()
    assert (ran["stdout"], ran["exit_code"], ran["language"]) == ("hi\n", 3, "python")
    ran = http.post(url, json={"language": "bash", "code": "echo a; echo b >&2"}).json()
    assert (ran["stdout"], ran["stderr"]) == ("a\n", "b\n")
    for language in ("bash", "sh"):
        ran = http.post(url, json={"language": language, "code": "cat\necho after"}).json()
        assert ran["stdout"] == "after\n", "a command read the rest of the program"
    for language in ("ruby", "node", "cobol"):
        refused = http.post(url, json={"language": language, "code": "1"})
        assert (refused.status_code, refused.json()["field"]) == (400, "language")


def test_a_template_without_ipython_has_sessions_of_bash(create: Create) -> None:
    sandbox = create()
    with pytest.raises(BadRequestError, match="IPython is not installed"):
        sandbox.create_code_context()
    with sandbox.create_code_context("bash") as context:
        context.run_code("cd /tmp; x=1")
        assert context.run_code("echo $PWD $x").stdout == "/tmp 1\n"


def test_a_user_who_ends_the_kernels_gets_new_ones(create: Create) -> None:
    sandbox = create()
    first = sandbox.create_code_context("bash")
    # Until it is gone, it may still accept a connection that then breaks.
    gone = "until ! pgrep -f kernels/[s]erver.py; do sleep 0.1; done"
    assert sandbox.exec(f"pkill -9 -f kernels/[s]erver.py; {gone}", timeout_seconds=30).exit_code == 0
    with pytest.raises(NotFoundError):
        first.run_code("true")
    assert sandbox.create_code_context("bash").run_code("echo back").stdout == "back\n"


def test_python_kernels_end_with_their_server(create: Create) -> None:
    sandbox = create("code-interpreter")
    assert value(sandbox.create_code_context(), "1") == "1"
    assert sandbox.exec("pgrep -fc kernels/[z]ygote.py", check=True).stdout.strip() >= "2"
    gone = "until ! pgrep -f kernels/[z]ygote.py; do sleep 0.1; done"
    assert sandbox.exec(f"pkill -9 -f kernels/[s]erver.py; {gone}", timeout_seconds=30).exit_code == 0
    assert value(sandbox.create_code_context(), "2") == "2"


def test_the_command_line(server: Server, home: Sandbox, tmp_path) -> None:
    argv = ["sandbox", "repl", home.id, "--timeout", "60", "--save", str(tmp_path / "pictures")]
    code = "import matplotlib.pyplot as plt; plt.plot([1]); plt.show(); print('seen'); 6 * 7"
    from tests.support.installation import COMMAND

    def run(text: str) -> subprocess.CompletedProcess[str]:
        environment = {**server.installation.environment, "PANDASTACK_API": server.url}
        environment["PANDASTACK_API_KEY"] = server.token
        return subprocess.run(
            [*COMMAND, *argv], input=text, env=environment, capture_output=True, text=True, timeout=120
        )

    done = run(code)
    assert (done.returncode, done.stdout) == (0, "seen\n42\n"), done.stderr
    assert (tmp_path / "pictures/1.png").read_bytes().startswith(PNG)
    failed = run("1/0")
    assert failed.returncode == 1 and "ZeroDivisionError" in failed.stderr


def test_the_wire_has_what_the_contract_says(http: httpx.Client, home: Sandbox) -> None:
    url = f"/sandboxes/{home.id}/repl/sessions"
    made = http.post(url, json={"language": "python"})
    session = made.json()
    assert made.status_code == 201 and session["id"] == session["session_id"] and session["sandbox_id"] == home.id
    ran = http.post(f"{url}/{session['id']}/run", json={"code": "{'a': 1}"}).json()
    assert (ran["exit"], ran["exit_code"], ran["results"]) == (0, 0, [{"text/plain": "{'a': 1}"}])
    listed = [each for each in http.get(url).json() if each["id"] == session["id"]]
    assert listed[0]["cells"] == 1
    late = http.post(f"{url}/{session['id']}/run", json={"code": "while 1: pass", "timeout_ms": 500})
    assert late.status_code == 500 and "cell timeout after 0.5s" in late.json()["error"]
    assert http.delete(f"{url}/{session['id']}").status_code == 204
    assert http.delete(f"{url}/{session['id']}").status_code == 404
    assert json.dumps(http.get("/repl/languages").json())

"""Commands and code."""

from __future__ import annotations

import seen


def run(client) -> dict[str, object]:
    with client.sandboxes.create("base") as sandbox:
        return {
            "both": seen.result(sandbox.exec("echo out; echo err >&2; exit 3")),
            "by_commands": seen.result(sandbox.commands.run("echo $((6*7))")),
            "place": seen.result(sandbox.exec("id -u; echo $HOME; pwd; cat | wc -c")),
            "script": seen.result(sandbox.exec(": " + "x" * 300_000 + "\necho long")),
            "bytes": seen.result(sandbox.exec(r"printf 'a\377b'")),
            "codes": [sandbox.exec(cmd).exit_code for cmd in ("/etc/passwd", "no-such-program", "kill -9 $$")],
            "python": seen.result(sandbox.run_code('import sys; print(len(sys.argv), "it\'s")')),
            "shell": seen.result(sandbox.run_code("echo $((2*16))", language="bash")),
            "left_behind": seen.result(sandbox.exec("setsid sleep 600 </dev/null >/dev/null 2>&1 & echo started")),
            "survives": seen.result(sandbox.exec("pgrep -cx sleep")),
            "check": seen.error(lambda: sandbox.exec("exit 9", check=True)),
            "timeout": seen.error(lambda: sandbox.exec("sleep 60", timeout_seconds=1)),
            "none": seen.error(lambda: sandbox.exec("")),
            "after_timeout": seen.result(sandbox.exec("pgrep -fcx 'sleep 60' || true")),
        }


def stream(client) -> dict[str, object]:
    with client.sandboxes.create("base") as sandbox:
        out: list[str] = []
        err: list[str] = []
        text = "line\u2028sep\u0085nel\u000b ü 🐼 end"
        sandbox.filesystem.write("/root/text", text)
        status = sandbox.exec_stream("cat /root/text; echo err >&2; exit 4", out.append, err.append)
        ignored: list[str] = []
        return {
            "status": status,
            "out": "".join(out),
            "expected": text,
            "err": "".join(err),
            "silent": sandbox.exec_stream("true"),
            "timeout": seen.error(lambda: sandbox.exec_stream("echo a; sleep 60", ignored.append, timeout_seconds=1)),
            "before_timeout": ignored,
            "none": seen.error(lambda: sandbox.exec_stream("")),
        }


def after_the_end(client) -> dict[str, object]:
    """What a stream says whose sandbox is deleted meanwhile."""
    import threading

    sandbox = client.sandboxes.create("base")
    killer = threading.Timer(0.5, sandbox.kill)
    began = threading.Event()

    def output(_chunk: str) -> None:
        if not began.is_set():
            began.set()
            killer.start()

    outcome = seen.error(lambda: sandbox.exec_stream("echo begun; sleep 60", output))
    killer.join()
    return {"outcome": outcome, "begun": began.is_set()}

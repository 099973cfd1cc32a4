"""Cells of code in sessions that keep their state."""

from __future__ import annotations

import seen


def cells(client) -> dict[str, object]:
    with client.sandboxes.create("code-interpreter") as sandbox:
        with sandbox.create_code_context() as context:

            def run(code: str, **options):
                done = context.run_code(code, **options)
                shown = [result.data for result in done.results]
                return {
                    "stdout": done.stdout,
                    "stderr": done.stderr,
                    "exit": done.exit_code,
                    "error": done.error,
                    "results": shown,
                    "text": done.text,
                }

            told = {
                "id": context.id,
                "none": run("x = 41"),
                "value": run("import sys\nprint('out'); print('err', file=sys.stderr)\nx + 1"),
                "raised": run("1 / 0"),
                "kept": run("x"),
                "rich": run(
                    "class Rich:\n"
                    "    def _repr_html_(self): return '<b>ü</b>'\n"
                    "    def _repr_json_(self): return {'a': 1}\n"
                    "Rich()"
                ),
                "late": seen.error(lambda: run("import time\ntime.sleep(60)", timeout_seconds=1)),
                "after": run("x"),
                "empty": seen.error(lambda: run("")),
            }
        return told | {
            "closed": seen.error(lambda: context.run_code("1")),
            "language": seen.error(lambda: sandbox.create_code_context("cobol")),
        }

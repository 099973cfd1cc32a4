"""Functions: made, called, run by a schedule, changed, deployed again, deleted."""

from __future__ import annotations

import secrets
import tempfile
from pathlib import Path

import seen

SOURCE = """import os
def handler(event, context):
    print("said")
    return {"event": event, "key": os.environ["KEY"]}
"""
SECOND = "def handler(event, context):\n    return 2\n"
BROKEN = "import nothere\ndef handler(event, context):\n    pass\n"


def scheduled(schedules, name: str, function_id: str) -> dict[str, object]:
    made = schedules.create(name, function_id, "0 3 * * *")
    one = made["id"]
    told = {
        "made": made,
        "got": schedules.get(one),
        "listed": [each["id"] for each in schedules.list()],
        "paused": schedules.update(one, paused=True),
        "triggered": schedules.trigger(one),
        "runs": schedules.runs(one),
    }
    schedules.delete(one)
    return told | {"after": seen.error(lambda: schedules.get(one))}


def life(client) -> dict[str, object]:
    functions = client.functions
    name = f"conformance-{secrets.token_hex(4)}"
    renamed = f"{name}-renamed"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "handler.py"
        file.write_text(SOURCE)
        made = functions.create(name, "python", str(file), env={"KEY": "value"})
        one = made["id"]
        told = {
            "made": made,
            "got": functions.get(one),
            "listed": [each for each in functions.list() if each["id"] == one],
            "run": functions.invoke(one, input={"n": 1}),
            "triggered": functions.trigger(one),
            "schedule": scheduled(client.schedules, name, one),
            "twice": seen.error(lambda: functions.create(name, "python", str(file))),
        }
        file.write_text(BROKEN)
        told["broken"] = seen.error(lambda: functions.deploy(name, "python", folder))
        told["updated"] = functions.update(one, name=renamed, env={"KEY": "v"}, public=True)
        file.write_text(SECOND)
        told["deployed"] = functions.deploy(renamed, "python", folder)
        told["bundled"] = functions.deploy_bundle(one, SECOND.encode(), "handler.py")
    told["again"] = functions.invoke(one)
    told["runs"] = functions.runs(one)
    told["metrics"] = functions.metrics(one)
    functions.delete(one)
    return told | {"after": seen.error(lambda: functions.get(one))}

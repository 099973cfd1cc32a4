"""A runner pool and its jobs: the checkout is prepared once, and each job has a fresh copy of it."""

import tempfile
from pathlib import Path

from pandastack import Client

client = Client()
with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    (folder / "check.sh").write_text("test -f prepared && echo ok > report.txt && echo the tests pass\n")
    client.runners.put("example-ci", prepare=["touch prepared"], concurrency=2)
    try:
        pool = client.runners.refresh("example-ci", folder)
        print("prepared:", pool["state"])
        job = client.jobs.run(
            "example-ci", "sh check.sh", artifacts=["report.txt"], on_output=lambda stream, text: print(text, end="")
        )
        client.jobs.download(job["id"], folder / "artifacts")
        print(job["state"], "with", (folder / "artifacts" / "report.txt").read_text().strip())
    finally:
        client.runners.delete("example-ci")

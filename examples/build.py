"""A directory, built twice in machines that differ: the same bytes, and a document that says where they come from."""

import json
import tempfile
from pathlib import Path

from pandastack import Client

with tempfile.TemporaryDirectory() as work, Client() as client:
    source, output = Path(work, "source"), Path(work, "output")
    source.mkdir()
    (source / "greet.py").write_text("print('hello from a reproducible archive')\n")
    command = "mkdir app && cp -p greet.py app/__main__.py && TZ=UTC python3 -m zipapp app -o $OUT/greet.pyz"

    build = client.builds.run(source, command, output, verify=True)
    print("reproducible:", build.reproducible)
    print((output / "SHA256SUMS").read_text(), end="")
    provenance = json.loads((output / "provenance.json").read_text())
    for each in provenance["predicate"]["buildDefinition"]["resolvedDependencies"]:
        print("made from:", each["name"], *each["digest"].values())

    build = client.builds.run(source, "date +%N > $OUT/stamp", Path(work, "other"), verify=True)
    print("reproducible:", build.reproducible, *[each.path for each in build.differences])

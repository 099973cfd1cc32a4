"""The provenance of a build: an in-toto Statement v1 with a SLSA Provenance v1 predicate. Pure.

Sources: https://in-toto.io/Statement/v1 and https://slsa.dev/provenance/v1.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pandastack
from pandastack.contract.templates import Template
from pandastack.products.builds.records import BuildRecord
from pandastack.products.builds.surroundings import Surroundings
from pandastack.products.builds.trees import Tree, shown
from pandastack.recorder.lock import Entry, Lock

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:pandastack:hermetic-build:v1"
BUILDER = "urn:pandastack:builder:microvm"


def provenance(
    build: BuildRecord,
    template: Template,
    at: Surroundings,
    made: Tree,
    second: Tree | None,
    log_sha256: str,
    fetched: Lock | None = None,
) -> dict[str, Any]:
    """The statement about the artifacts ``made``. ``second`` is what a verifying second build made, ``fetched`` what
    the build had of the network."""
    return {
        "_type": STATEMENT,
        "subject": [{"name": shown(each.name), "digest": {"sha256": each.sha256}} for each in made.files],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": _definition(build, template, at, fetched or Lock()),
            "runDetails": {
                "builder": {"id": BUILDER, "version": {"pandastack": pandastack.__version__}},
                "metadata": {
                    "invocationId": build.id,
                    "startedOn": _time(build.created_at),
                    "finishedOn": _time(build.ended_at or build.created_at),
                },
                "byproducts": _byproducts(made, second, log_sha256),
            },
        },
    }


def _definition(build: BuildRecord, template: Template, at: Surroundings, fetched: Lock) -> dict[str, Any]:
    spec = build.spec
    return {
        "buildType": BUILD_TYPE,
        "externalParameters": {
            "artifacts": list(spec.artifacts),
            "command": spec.command,
            "env": dict(spec.env),
            "sourceDateEpoch": at.epoch,
            "template": spec.template,
            "verify": spec.verify,
        },
        "internalParameters": at.described(),
        "resolvedDependencies": [
            {"name": "input", "digest": {"sha256": build.source_sha256}},
            {
                "name": "template",
                "uri": f"urn:pandastack:template:{template.name}",
                # A hash of everything that determines the template's snapshot, not of its bytes.
                "digest": {"pandastackTemplate": template.version},
            },
            {
                "name": "kernel",
                "uri": f"urn:pandastack:kernel:{template.manifest.kernel_release}",
                "digest": {"sha256": template.manifest.kernel_sha256},
            },
            *([{"name": "lock", "digest": {"sha256": build.lock_sha256}}] if build.lock_sha256 else []),
            *(_material(each) for each in fetched.entries),
        ],
    }


def _material(entry: Entry) -> dict[str, Any]:
    """An answer that the build was given. ``HEAD`` and redirects have digests of their bodies, too."""
    return {
        "uri": entry.url,
        "digest": {"sha256": entry.sha256},
        "annotations": {"method": entry.method, "status": entry.status},
    }


def _byproducts(made: Tree, second: Tree | None, log_sha256: str) -> list[dict[str, Any]]:
    found = [("log", log_sha256), ("artifacts.tar", made.sha256)]
    if second is not None:
        found.append(("artifacts.tar of the second build", second.sha256))
    return [{"name": name, "digest": {"sha256": digest}} for name, digest in found]


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")

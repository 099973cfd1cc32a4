"""The official clients: how they get onto this machine, and how a scenario is run with one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.cached import cached, run
from tests.support.installation import Server

PYTHON_SDK = "0.10.0"
NPM_PACKAGE = "@pandastack/sdk"
NPM_VERSION = "0.9.0"
OPENAPI_VERSION, EXAMPLES_VERSION = "23.0.2", "7.6.1"
"""Of the packages in which GitHub's descriptions of its API and its webhooks are published."""
DRIVERS = Path(__file__).parent / "drivers"
SECONDS = 120.0
"""More than any scenario takes on a busy machine; they end by themselves."""


Cli = Callable[..., subprocess.CompletedProcess[str]]
"""``cli(*arguments)``: run a command line to its end."""


def environment_of(server: Server) -> dict[str, str]:
    """What every official client finds server and token in; one of them has a variable of its own for the former."""
    address = {"PANDASTACK_API": server.url, "PANDASTACK_API_URL": server.url, "PANDASTACK_API_KEY": server.token}
    return {**server.installation.environment, **address}


@dataclass(frozen=True)
class Result:
    """What a scenario returned, the public methods of the client that it called, and the requests that it sent.

    A request is written ``METHOD /path``, without the query.
    """

    value: Any
    calls: frozenset[str]
    requests: tuple[str, ...]


@dataclass(frozen=True)
class Official:
    """One of the SDKs. ``argv`` starts its driver; ``environment`` tells it server and token."""

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    directory: Path
    done: dict[str, Result] = field(default_factory=dict)

    def run(self, scenario: str, **arguments: object) -> Result:
        """Run ``noun.scenario``. One that ran before with the same arguments in this session is not run again."""
        key = f"{scenario} {json.dumps(arguments, sort_keys=True)}"
        if key not in self.done:
            argv = [*self.argv, scenario, json.dumps(arguments)]
            ran = subprocess.run(
                argv, env=self.environment, cwd=self.directory, capture_output=True, text=True, timeout=SECONDS
            )
            assert ran.returncode == 0, f"{self.name} {scenario}: {ran.stderr}"
            told = json.loads(ran.stdout)
            self.done[key] = Result(told["value"], frozenset(told["calls"]), tuple(told["requests"]))
        return self.done[key]

    def scenarios(self) -> list[str]:
        """The names of all scenarios that need no arguments."""
        listed: list[str] = self.run("run.scenarios").value
        return listed


def python_sdk() -> Path:
    """An interpreter that has nothing but the official Python SDK."""

    def install(home: Path) -> None:
        run(sys.executable, "-m", "venv", str(home))
        run(str(home / "bin/python"), "-m", "pip", "install", "--quiet", f"pandastack=={PYTHON_SDK}")

    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    return cached(f"official-sdk-{PYTHON_SDK}-py{version}", install) / "bin" / "python"


def npm_package() -> Path:
    """A directory whose ``node_modules`` has the official npm package."""

    def install(home: Path) -> None:
        (home / "package.json").write_text('{"private": true}\n')
        npm = ["npm", "install", "--no-audit", "--no-fund", "--silent", "--prefix", str(home)]
        run(*npm, f"{NPM_PACKAGE}@{NPM_VERSION}")

    return cached(f"official-npm-{NPM_VERSION}", install)


def github_documents() -> Path:
    """A directory with what GitHub publishes: ``openapi.json`` of its REST API, ``webhooks.json`` with examples."""

    def install(home: Path) -> None:
        with tempfile.TemporaryDirectory() as directory:
            work = Path(directory)
            (work / "package.json").write_text('{"private": true}\n')
            npm = ["npm", "install", "--no-audit", "--no-fund", "--silent", "--ignore-scripts", "--prefix", directory]
            run(*npm, f"@octokit/openapi@{OPENAPI_VERSION}", f"@octokit/webhooks-examples@{EXAMPLES_VERSION}")
            found = work / "node_modules" / "@octokit"
            shutil.copy(found / "openapi/generated/api.github.com.json", home / "openapi.json")
            shutil.copy(found / "webhooks-examples/api.github.com/index.json", home / "webhooks.json")

    return cached(f"github-{OPENAPI_VERSION}-{EXAMPLES_VERSION}", install)

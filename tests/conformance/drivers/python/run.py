"""Run a scenario with the official SDK: ``run.py NOUN.SCENARIO JSON-ARGUMENTS``. Prints one JSON object.

A scenario is a public function of one of the modules beside this one, called with a client and the arguments. ``value``
is what it returned, ``calls`` the public methods of the SDK that were called, ``requests`` what was sent.
"""

from __future__ import annotations

import functools
import inspect
import json
import sys
from importlib import import_module
from pathlib import Path
from urllib.parse import urlsplit

import requests

import pandastack

NOUNS = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in ("run", "seen"))
CLASSES = ("Client", "SandboxAPI", "Sandbox", "SandboxFilesystem", "SandboxCommands", "CodeContext")
CONVERSIONS = ("from_dict",)


def scenarios(_client) -> list[str]:
    """The names of those that need no arguments, for a caller that wants to run them all."""
    modules = {noun: import_module(noun) for noun in NOUNS}
    return [f"{noun}.{name}" for noun, module in modules.items() for name, needs in public(module) if needs == 1]


def public(module):
    """The scenarios of a module, and how many parameters each has."""
    for name, function in inspect.getmembers(module, inspect.isfunction):
        if function.__module__ == module.__name__ and not name.startswith("_"):
            yield name, len(inspect.signature(function).parameters)


def surface(_client) -> list[str]:
    """Every public method of the SDK."""
    return sorted(f"{owner.__name__}.{name}" for owner, name, _ in methods())


def where(_client) -> dict[str, str]:
    """Which SDK this is."""
    return {"version": pandastack.__version__, "file": pandastack.__file__}


def methods():
    """Owner, name and definition of every public method of the SDK's clients and objects."""
    found = {}
    for module in [each for name, each in sys.modules.items() if name.partition(".")[0] == "pandastack"]:
        for owner in vars(module).values():
            if inspect.isclass(owner) and (owner.__name__ in CLASSES or owner.__name__.endswith("API")):
                found[owner.__name__] = owner
    for owner in found.values():
        for name, definition in vars(owner).items():
            callable_ = inspect.isfunction(getattr(definition, "__func__", definition))
            if callable_ and not name.startswith("_") and name not in CONVERSIONS:
                yield owner, name, definition


def record_calls() -> set[str]:
    """From now on, the names of the methods that are called."""
    called: set[str] = set()

    def recording(label, function):
        @functools.wraps(function)
        def wrapper(*args, **kwargs):
            called.add(label)
            return function(*args, **kwargs)

        return wrapper

    for owner, name, definition in list(methods()):
        label = f"{owner.__name__}.{name}"
        if isinstance(definition, classmethod):
            setattr(owner, name, classmethod(recording(label, definition.__func__)))
        else:
            setattr(owner, name, recording(label, definition))
    return called


def record_requests() -> list[str]:
    """From now on, what is sent, attempts that were repeated included."""
    sent: list[str] = []
    send = requests.Session.request

    def request(self, method, url, *args, **kwargs):
        sent.append(f"{method} {urlsplit(url).path}")
        return send(self, method, url, *args, **kwargs)

    requests.Session.request = request
    return sent


def main() -> None:
    noun, _, name = sys.argv[1].partition(".")
    arguments = json.loads(sys.argv[2])
    scenario = globals()[name] if noun == "run" else getattr(import_module(noun), name)
    calls, sent = record_calls(), record_requests()
    value = scenario(pandastack.Client(), **arguments)
    print(json.dumps({"value": value, "calls": sorted(calls), "requests": sent}))


if __name__ == "__main__":
    main()

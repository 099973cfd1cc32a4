"""The package in a fresh interpreter, where nothing else has imported its parts."""

from __future__ import annotations

import subprocess
import sys

import pytest

ASYNC = """
import asyncio
from pandastack import APIConnectionError, AsyncSandbox

try:
    asyncio.run(AsyncSandbox.create("base"))
except APIConnectionError:
    print("asked")
"""
WAITING = """
from pandastack import APIConnectionError, Sandbox

try:
    Sandbox.create("base")
except APIConnectionError:
    print("asked")
"""


@pytest.mark.parametrize("program", [ASYNC, WAITING], ids=["async", "waiting"])
def test_a_sandbox_class_alone_has_a_default_client(program: str) -> None:
    environment = {
        "PANDASTACK_API": "http://127.0.0.1:9",
        "PANDASTACK_API_KEY": "pds_" + "0" * 32,
        "HOME": "/nowhere",
    }
    argv = [sys.executable, "-c", program]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout == "asked\n", done.stderr

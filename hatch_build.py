"""Build hook: compiles what is written in C for every architecture and ships the programs inside the wheel."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


def _load(path: Path) -> ModuleType:
    """A module by its file: importing it by name would load the package around it, which is not installed yet."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _programs(root: Path) -> Iterator[Path]:
    """Everything that is compiled, none of it out of date."""
    sys.path.insert(0, str(root / "src"))
    package = root / "src/pandastack"
    agent = _load(package / "guest/agent/build.py")
    for arch in agent.ARCHITECTURES:
        target = package / "guest/agent/bin" / f"agent-{arch}"
        if agent.is_stale(root / "guest-agent", target):
            agent.compile_agent(root / "guest-agent", arch, target, portable=True)
        yield target
    preload = _load(package / "vmm/qemu/preload.py")
    for arch in preload.ARCHITECTURES:
        yield preload.build(arch, portable=True)


class ProgramsBuildHook(BuildHookInterface[Any]):
    """Puts ``guest/agent/bin/agent-ARCH`` and ``vmm/qemu/bin/readonly-memory-ARCH-…`` into the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile what is out of date; an editable installation does it on first use instead."""
        if version == "editable":
            return
        root = Path(self.root)
        for program in _programs(root):
            build_data["force_include"][str(program)] = str(program.relative_to(root / "src"))

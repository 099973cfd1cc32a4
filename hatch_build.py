"""Build hook: compiles the guest agent for every architecture and ships the programs inside the wheel."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("agent_build", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class AgentBuildHook(BuildHookInterface[Any]):
    """Puts ``guest/agent/bin/agent-ARCH`` into the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile what is out of date; an editable installation does it on first use instead."""
        if version == "editable":
            return
        root = Path(self.root)
        package = root / "src/pandastack/guest/agent"
        build = _load(package / "build.py")
        for arch in build.ARCHITECTURES:
            target = package / "bin" / f"agent-{arch}"
            if build.is_stale(root / "guest-agent", target):
                build.compile_agent(root / "guest-agent", arch, target)
            build_data["force_include"][str(target)] = f"pandastack/guest/agent/bin/{target.name}"

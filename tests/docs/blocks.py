"""The fenced blocks of the documentation, and how one is run."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

RUNNABLE = ("bash", "console", "python")
"""Languages of blocks that are run. They say so, ``bash run``, so that a reader of the source sees it too."""

SHOWN = ("text", "json", "toml", "dockerfile")
"""Languages of blocks that are only read."""

_FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,})(?P<info>[^`]*)$")


@dataclass(frozen=True)
class Block:
    """A fenced block; ``line`` is the number of its first fence in ``page``, from 1."""

    page: Path
    line: int
    info: str
    text: str

    @property
    def language(self) -> str:
        return self.info.partition(" ")[0]

    @property
    def runs(self) -> bool:
        return self.info.split()[1:] == ["run"]

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def pages() -> list[Path]:
    """Every page of the documentation."""
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page. Raises ValueError for a fence that is never closed."""
    opened: tuple[int, re.Match[str]] | None = None
    inside: list[str] = []
    for number, line in enumerate(page.read_text().splitlines(), 1):
        fence = _FENCE.match(line)
        if opened is None:
            opened, inside = ((number, fence) if fence else None), []
        elif fence and not fence["info"] and fence["fence"] == opened[1]["fence"]:
            yield Block(page, opened[0], opened[1]["info"].strip(), "\n".join(inside) + "\n")
            opened = None
        else:
            inside.append(line.removeprefix(opened[1]["indent"]))
    if opened is not None:
        raise ValueError(f"{page}:{opened[0]}: the fence is never closed")


def commands_and_output(text: str) -> tuple[str, list[str]]:
    """What a ``console`` block does (lines that begin with ``$ ``) and the lines that it says come out."""
    lines = text.splitlines()
    script = [line[2:] for line in lines if line.startswith("$ ")]
    return "\n".join(script) + "\n", [line for line in lines if not line.startswith("$ ")]


def says(shown: list[str], printed: list[str]) -> bool:
    """Whether ``printed`` is what a page shows, where ``…`` stands for anything within a line."""
    patterns = [".*".join(re.escape(part) for part in line.split("…")) for line in shown]
    return len(shown) == len(printed) and all(map(re.fullmatch, patterns, printed))


def carry_out(block: Block, directory: Path, environment: Mapping[str, str]) -> None:
    """Run a block in ``directory``. Raises AssertionError with everything it printed when it fails."""
    script, shown = (block.text, None) if block.language != "console" else commands_and_output(block.text)
    bash = ["bash", "-euo", "pipefail", "-c"]
    argv = [sys.executable, "-c", script] if block.language == "python" else [*bash, script]
    done = subprocess.run(argv, cwd=directory, env=environment, capture_output=True, text=True, timeout=180)
    told = f"{block}\n{script}\n--- status {done.returncode}\n{done.stdout}\n--- errors\n{done.stderr}"
    assert done.returncode == 0, told
    if shown is not None:
        assert says(shown, done.stdout.splitlines()), told

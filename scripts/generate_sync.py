"""Generate the blocking client library from the waiting one.

python scripts/generate_sync.py            rewrite src/pandastack/sdk/_sync
python scripts/generate_sync.py --check    exit with status 1 when it is not up to date
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

import tokenize_rt
import unasync

SDK = Path(__file__).resolve().parent.parent / "src" / "pandastack" / "sdk"
HEADER = "# Generated from ../_async/{name} by scripts/generate_sync.py: change that file, not this one.\n"
PREFIXES = (re.compile("Async(?=[A-Z])"), re.compile("async_(?=[a-z])"))
"""``AsyncClient`` becomes ``Client``, ``async_pause`` becomes ``pause``."""
NAMES = {
    "get_default_async_client": "get_default_client",
    "set_default_async_client": "set_default_client",
    "aclose": "close",
    "aclosing": "closing",
    "aiter_bytes": "iter_bytes",
    "anext": "next",
    "aread": "read",
    "_async": "_sync",
}
"""Other names. The library that takes ``async`` and ``await`` out knows the special methods."""


class Blocking(unasync.Rule):  # type: ignore[misc]
    """Turns waiting code into blocking code, and notes which of our rules it needed."""

    def __init__(self) -> None:
        super().__init__("/_async/", "/_sync/", additional_replacements=NAMES)
        self.used: set[str] = set()

    def unused(self) -> list[str]:
        """Rules that nothing needed yet."""
        return sorted({*NAMES, *(prefix.pattern for prefix in PREFIXES)} - self.used)

    def body(self, text: str) -> str:
        """The blocking counterpart of a module's text."""
        return str(tokenize_rt.tokens_to_src(self._unasync_tokens(tokenize_rt.src_to_tokens(text))))

    def _unasync_name(self, name: str) -> str:
        if name in NAMES:
            self.used.add(name)
        for prefix in PREFIXES:
            if prefix.match(name):
                self.used.add(prefix.pattern)
                return prefix.sub("", name)
        return str(super()._unasync_name(name))


def generated(source: Path, rule: Blocking) -> str:
    """The blocking counterpart of one file."""
    return HEADER.format(name=source.name) + sorted_imports(rule.body(source.read_text(encoding="utf-8")))


def sorted_imports(text: str) -> str:
    """``text`` with its imports in order: shorter names sort differently."""
    argv = [
        "ruff",
        "check",
        "--select",
        "I",
        "--fix",
        "--quiet",
        "--stdin-filename",
        "src/pandastack/sdk/x.py",
        "-",
    ]
    return subprocess.run([sys.executable, "-m", *argv], input=text, text=True, capture_output=True, check=True).stdout


def all_generated() -> dict[Path, str]:
    """Every file of the blocking flavour with the content that it must have. Raises SystemExit for a rule too many."""
    rule = Blocking()
    files = {SDK / "_sync" / source.name: generated(source, rule) for source in sorted((SDK / "_async").glob("*.py"))}
    if unused := rule.unused():
        raise SystemExit(f"nothing in _async needs the rules for {', '.join(unused)}: remove them")
    return files


def outdated(files: dict[Path, str]) -> list[Path]:
    """The files that differ, are missing, or have no source any more."""
    present = set((SDK / "_sync").glob("*.py"))
    differing = {path for path, text in files.items() if path not in present or path.read_text("utf-8") != text}
    return sorted(differing | (present - files.keys()))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only compare")
    files = all_generated()
    stale = outdated(files)
    if parser.parse_args().check:
        sys.stderr.writelines(f"{path} is out of date\n" for path in stale)
        return 1 if stale else 0
    for path in stale:
        if path in files:
            path.write_text(files[path], encoding="utf-8")
        else:
            path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())

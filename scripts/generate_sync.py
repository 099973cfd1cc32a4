"""Generate the blocking client library from the waiting one.

python scripts/generate_sync.py            rewrite src/pandastack/sdk/_sync
python scripts/generate_sync.py --check    exit with status 1 when it is not up to date
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import tokenize_rt
import unasync

SDK = Path(__file__).resolve().parent.parent / "src" / "pandastack" / "sdk"
HEADER = "# Generated from ../_async/{name} by scripts/generate_sync.py: change that file, not this one.\n"
_CLASSES = (
    "Branches",
    "CancelEvent",
    "Client",
    "CodeContext",
    "CommandStream",
    "Experiment",
    "Lifecycle",
    "Process",
    "Processes",
    "Sandbox",
    "SandboxAPI",
    "SandboxCommands",
    "SandboxFilesystem",
    "SnapshotsAPI",
    "TemplatesAPI",
    "Transport",
)
_FUNCTIONS = (
    "check_cancel",
    "explore",
    "pack_tree",
    "pause",
    "read_piece",
    "run_all",
    "scope",
    "settled",
    "unpack_tree",
    "write_file",
)
REPLACEMENTS = {
    **{f"Async{name}": name for name in _CLASSES},
    **{f"async_{name}": name for name in _FUNCTIONS},
    "get_default_async_client": "get_default_client",
    "set_default_async_client": "set_default_client",
    "aclose": "close",
    "aclosing": "closing",
    "aiter_bytes": "iter_bytes",
    "anext": "next",
    "aread": "read",
    "_async": "_sync",
}
RULE = unasync.Rule("/_async/", "/_sync/", additional_replacements=REPLACEMENTS)


def generated(source: Path) -> str:
    """The blocking counterpart of one file."""
    tokens = tokenize_rt.src_to_tokens(source.read_text(encoding="utf-8"))
    body = tokenize_rt.tokens_to_src(RULE._unasync_tokens(tokens))
    return HEADER.format(name=source.name) + sorted_imports(body)


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
    """Every file of the blocking flavour with the content that it must have."""
    return {SDK / "_sync" / source.name: generated(source) for source in sorted((SDK / "_async").glob("*.py"))}


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

"""What a scenario saw, as JSON can hold it."""

from __future__ import annotations


def error(function) -> dict[str, str] | None:
    """The exception that ``function`` raises, by the name of its class, and what it says."""
    try:
        function()
    except Exception as raised:
        return {"type": type(raised).__name__, "message": str(raised)}
    return None


def sandbox(given) -> dict[str, object]:
    """The fields of a sandbox that the SDK read."""
    names = ("id", "template", "cpu", "memory_mb", "status", "metadata", "from_snapshot", "boot_ms", "boot_mode")
    return {name: getattr(given, name) for name in names}


def result(given) -> list[object]:
    """A command's outputs and exit code."""
    return [given.stdout, given.stderr, given.exit_code]


def entry(given) -> dict[str, object]:
    """A file or directory."""
    return {name: getattr(given, name) for name in ("name", "path", "is_dir", "size")}

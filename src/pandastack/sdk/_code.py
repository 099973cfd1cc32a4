"""Results of code cells: rich output, and how the cell ended."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pandastack.sdk.wire.call import Call, segment

CHART = "application/vnd.pandastack.chart+json"
_ALIASES = {"py": "python", "python3": "python", "sh": "bash", "shell": "bash", "js": "node"}
_CELL_SECONDS = 30.0
_GRACE_SECONDS = 75.0
"""Seconds that the server may take beyond a cell's limit, to interrupt it or to replace a stuck interpreter."""


@dataclass(frozen=True)
class Result:
    """One result of a cell, in one or more representations: ``data`` maps MIME types to text.

    Pictures are base64, JSON is text. Each property returns one representation, or None.
    """

    data: dict[str, str]

    @property
    def text(self) -> str | None:
        """Plain text: every value at the end of a cell has it."""
        return self.data.get("text/plain")

    @property
    def html(self) -> str | None:
        """HTML, for example of a DataFrame."""
        return self.data.get("text/html")

    @property
    def markdown(self) -> str | None:
        """Markdown."""
        return self.data.get("text/markdown")

    @property
    def latex(self) -> str | None:
        """LaTeX."""
        return self.data.get("text/latex")

    @property
    def svg(self) -> str | None:
        """A drawing as SVG."""
        return self.data.get("image/svg+xml")

    @property
    def png(self) -> str | None:
        """A picture, base64."""
        return self.data.get("image/png")

    @property
    def jpeg(self) -> str | None:
        """A picture, base64."""
        return self.data.get("image/jpeg")

    @property
    def json(self) -> Any:
        """The parsed ``application/json``; its text when it is not valid JSON."""
        return _loaded(self.data.get("application/json"))

    @property
    def chart(self) -> str | None:
        """The picture, in any available format."""
        return self.png or self.jpeg or self.svg

    @property
    def chart_data(self) -> Any:
        """The content of a matplotlib figure, as ``{"axes": [{"type", "title", "series", …}]}``."""
        return _loaded(self.data.get(CHART))


@dataclass(frozen=True)
class Execution:
    """The output and results of a cell, and how it ended. ``error`` is the traceback of an exception.

    With ``restarted`` the interpreter was replaced: the session continues without its state. ``checkpoint_id`` is set
    when a checkpoint was requested.
    """

    results: list[Result] = field(default_factory=list)
    stdout: str = ""
    stderr: str = ""
    error: str | None = None
    exit_code: int = 0
    duration_ms: int = 0
    restarted: bool = False
    checkpoint_id: str | None = None

    @property
    def logs(self) -> dict[str, str]:
        """Both streams."""
        return {"stdout": self.stdout, "stderr": self.stderr}

    @property
    def text(self) -> str | None:
        """The first plain text among the results."""
        return next((each.text for each in self.results if each.text is not None), None)

    @property
    def png(self) -> str | None:
        """The first PNG among the results."""
        return next((each.png for each in self.results if each.png is not None), None)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Execution:
        """Build from the server's answer; a result is a MIME bundle, or one representation as type and data."""
        code = data.get("exit", data.get("exit_code"))
        return cls(
            results=[_result(each) for each in data.get("results") or [] if isinstance(each, Mapping)],
            stdout=str(data.get("stdout") or ""),
            stderr=str(data.get("stderr") or ""),
            error=str(data["error"]) if data.get("error") else None,
            exit_code=int(code or 0),
            duration_ms=int(data.get("duration_ms") or 0),
            restarted=bool(data.get("restarted")),
            checkpoint_id=data.get("checkpoint_id"),
        )


def _result(item: Mapping[str, Any]) -> Result:
    if "type" in item:
        return Result({str(item["type"]): str(item.get("data", ""))})
    return Result({str(mime): str(text) for mime, text in item.items()})


def _loaded(text: str | None) -> Any:
    if text is None:
        return None
    try:
        return json.loads(text)
    except ValueError:
        return text


def language_of(name: str) -> str:
    """The language that ``name`` stands for."""
    lower = name.lower()
    return _ALIASES.get(lower, lower)


def sessions_path(sandbox_id: str, session_id: str | None = None, below: str = "") -> str:
    """The path of a sandbox's sessions, or of something below one of them."""
    sessions = f"/sandboxes/{segment(sandbox_id)}/repl/sessions"
    return sessions if session_id is None else f"{sessions}/{segment(session_id)}{below}"


def run_cell(
    sandbox_id: str, session_id: str, code: str, timeout_seconds: float | None, checkpoint: bool, default: float
) -> Call:
    """Run a cell; the client always waits longer than the cell may take, whatever the client's default timeout."""
    body: dict[str, Any] = {"code": code}
    if timeout_seconds is not None:
        body["timeout_ms"] = int(timeout_seconds * 1000)
    if checkpoint:
        body["checkpoint"] = True
    limit = _CELL_SECONDS if timeout_seconds is None else timeout_seconds
    path = sessions_path(sandbox_id, session_id, "/run")
    return Call("POST", path, json=body, silence=max(default, limit + _GRACE_SECONDS), into_guest=True)

"""Filters and pages of lists: ``status``, ``metadata.KEY``, ``limit`` and ``cursor``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import Query, Request, Response

from pandastack.api.models.base import Answer
from pandastack.api.requests import json_response
from pandastack.services.records.listing import MOST_PER_PAGE, SandboxFilter

NEXT = "X-Next-Cursor"
"""The header that carries the cursor of the next page."""

_METADATA = "metadata."
METADATA_PARAMETER: dict[str, Any] = {
    "name": "metadata.KEY",
    "in": "query",
    "required": False,
    "description": "Only sandboxes whose metadata has this text under KEY; several filters must all match",
    "schema": {"type": "string"},
}

Limit = Annotated[int | None, Query(description=f"Size of the page, 1 to {MOST_PER_PAGE}; absent: all")]
Cursor = Annotated[str | None, Query(description=f"The `{NEXT}` of the previous page")]
Statuses = Annotated[list[str] | None, Query(description="Only sandboxes with this status; several: with any of them")]


def sandbox_filter(request: Request, statuses: Sequence[str] | None) -> SandboxFilter:
    """The filter in ``request``. Raises :class:`BadRequestError`."""
    pairs = request.query_params.multi_items()
    metadata = [(name.removeprefix(_METADATA), text) for name, text in pairs if name.startswith(_METADATA)]
    return SandboxFilter.of(statuses or (), metadata)


def page_response(answer: Answer | Sequence[Answer], cursor: str | None) -> Response:
    """One page as JSON, with the cursor of the next page, if there is one, in the header."""
    response = json_response(answer)
    if cursor is not None:
        response.headers[NEXT] = cursor
    return response

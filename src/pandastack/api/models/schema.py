"""Documents the bodies that routes read by themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel


def takes(model: type[BaseModel], *parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a route's documentation for its JSON body, and for parameters that are not in its signature."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    definitions = schema.pop("$defs", {})
    body = {"requestBody": {"content": {"application/json": {"schema": _inline(schema, definitions)}}}}
    return body | ({"parameters": list(parameters)} if parameters else {})


def _inline(schema: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(schema, list):
        return [_inline(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inline(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    return {key: _inline(value, definitions) for key, value in schema.items()}

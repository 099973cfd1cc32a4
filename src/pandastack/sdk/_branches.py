"""Fork, fork-tree and promote as data: the requests, and the records in every form of answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pandastack.errors import ServerError
from pandastack.sdk.wire.call import Call, new_key, segment

_CONTAINERS = ("children", "items", "sandboxes")


def fork_sandbox(sandbox_id: str, metadata: Mapping[str, str] | None, key: str | None = None) -> Call:
    """``POST …/fork``; without metadata it has no body. ``key`` None: a new one."""
    body = None if metadata is None else {"metadata": dict(metadata)}
    return Call("POST", f"/sandboxes/{segment(sandbox_id)}/fork", json=body, creates=True, key=key or new_key())


def fork_sandbox_tree(sandbox_id: str, count: int, metadata: Mapping[str, str] | None, key: str | None = None) -> Call:
    """``POST …/fork-tree`` for ``count`` children. ``key`` None: a new one."""
    body: dict[str, Any] = {"count": count}
    if metadata is not None:
        body["metadata"] = dict(metadata)
    where = f"/sandboxes/{segment(sandbox_id)}/fork-tree"
    return Call("POST", where, json=body, creates=True, key=key or new_key())


def promote_sandbox(sandbox_id: str, cleanup_siblings: bool, tree_id: str | None) -> Call:
    """``POST …/promote``; without ``tree_id`` the server takes the tree that the sandbox belongs to."""
    body: dict[str, Any] = {"cleanup_siblings": cleanup_siblings}
    if tree_id is not None:
        body["tree_id"] = tree_id
    return Call("POST", f"/sandboxes/{segment(sandbox_id)}/promote", json=body)


def forked(answer: object, parent_id: str) -> dict[str, Any]:
    """The record of the only child in the answer to a fork. Raises ServerError when there is none."""
    if isinstance(answer, dict):
        if isinstance(answer.get("sandbox"), dict):
            return _child(answer["sandbox"], parent_id)
        children = answer.get("children")
        if isinstance(children, list) and children:
            return _child(children[0], parent_id)
        if answer.get("id"):
            return _child(answer, parent_id)
    raise ServerError("the server's answer to fork names no sandbox")


def children_of(answer: object, parent_id: str) -> list[dict[str, Any]]:
    """The records of the children in the answer to a fork-tree, in its order. Raises ServerError for anything
    else.
    """
    if isinstance(answer, dict):
        answer = next((answer[key] for key in _CONTAINERS if isinstance(answer.get(key), list)), None)
    if not isinstance(answer, list):
        raise ServerError("the server's answer to fork-tree has no list of children")
    return [_child(each, parent_id) for each in answer]


def _child(child: object, parent_id: str) -> dict[str, Any]:
    """One child's record; a bare id is accepted too."""
    record: dict[str, Any] = dict(child) if isinstance(child, dict) else {"id": str(child)}
    metadata = {"fork_parent_id": parent_id, **(record.get("metadata") or {})}
    return {"status": "running", **record, "metadata": metadata}

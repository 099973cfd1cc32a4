"""Copies of a running sandbox."""

from __future__ import annotations

from typing import Self

from pydantic import Field, StrictBool

from pandastack.api.models.base import Answer, Body, WholeNumber, omitted_if_none, timestamp
from pandastack.api.models.sandboxes import Sandbox
from pandastack.services import ControlPlane
from pandastack.services.sandboxes import forks


class Fork(Body):
    metadata: dict[str, str] | None = Field(None, description="Merged into the metadata of the children")
    count: WholeNumber | None = Field(None, description="How many children, 1 to 16")


class ForkError(Answer):
    index: int
    error: str


class Forked(Answer):
    """The result of a fork; clients read `sandbox`, the first of `children`, or both."""

    sandbox: Sandbox = Field(description="The first child")
    children: list[str] = Field(description="The ids of all children")
    parent_id: str
    snapshot_id: str
    at: str
    errors: list[ForkError] | None = omitted_if_none("Children that could not be made")

    @classmethod
    def of(cls, done: forks.Forked, plane: ControlPlane) -> Self:
        return cls(
            sandbox=Sandbox.of(done.children[0], plane),
            children=[child.id for child in done.children],
            parent_id=done.parent.id,
            snapshot_id=done.id,
            at=timestamp(done.at),
            errors=_errors(done),
        )


class ForkTree(Answer):
    """A fork tree; `children` are ordered by index."""

    tree_id: str
    parent_id: str
    snapshot_id: str
    at: str
    children: list[Sandbox]
    errors: list[ForkError] | None = omitted_if_none("Children that could not be made")

    @classmethod
    def of(cls, done: forks.Forked, plane: ControlPlane) -> Self:
        return cls(
            tree_id=done.id,
            parent_id=done.parent.id,
            snapshot_id=done.id,
            at=timestamp(done.at),
            children=[Sandbox.of(child, plane) for child in done.children],
            errors=_errors(done),
        )


class Promote(Body):
    cleanup_siblings: StrictBool | None = Field(None, description="Delete the other children of the tree")
    tree_id: str | None = Field(None, description="Default: the tree that the sandbox is part of")


class Promoted(Answer):
    winner: str
    tree_id: str
    deleted: list[str]
    failures: dict[str, str] = Field(description="Ids of children that were not deleted, and why")

    @classmethod
    def of(cls, done: forks.Promoted) -> Self:
        return cls(winner=done.winner, tree_id=done.tree_id, deleted=done.deleted, failures=done.failures)


def _errors(done: forks.Forked) -> list[ForkError] | None:
    return [ForkError(index=index, error=error.message) for index, error in done.errors.items()] or None

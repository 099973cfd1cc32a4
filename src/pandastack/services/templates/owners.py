"""Whose templates and builds are. To the engines an owner is a word without meaning; this says what it means.

Templates belong to the workspace that built them. The default workspace is the operator's: what it builds is
everybody's, as is what ships with the server (docs/design/0050).
"""

from __future__ import annotations

from pandastack.contract.references import TemplateRef
from pandastack.store.sandboxes import SandboxRecord
from pandastack.store.schema import DEFAULT_WORKSPACE

EVERYBODY = ""


def owner_of(workspace: str) -> str:
    """The owner of what ``workspace`` builds."""
    return EVERYBODY if workspace == DEFAULT_WORKSPACE else workspace


def workspace_of(owner: str) -> str:
    """The inverse: whose workspace an owner is."""
    return DEFAULT_WORKSPACE if owner == EVERYBODY else owner


def template_of(sandbox: SandboxRecord) -> TemplateRef:
    """The template of a sandbox. Records have the name that callers know."""
    return TemplateRef(sandbox.template, owner_of(sandbox.workspace))

"""Who may see previews, and who wakes: the precedence."""

from __future__ import annotations

import pytest

from pandastack.errors import BadRequestError
from pandastack.model.previews import (
    PreviewDefaults,
    Visibility,
    WakePolicy,
    Waker,
    check_metadata,
    is_private,
    may_wake,
    wake_policy,
    with_defaults,
)

OPEN, PRIVATE = Visibility.OPEN, Visibility.PRIVATE


@pytest.mark.parametrize(
    ("workspace", "own", "server", "private"),
    [
        (OPEN, None, "open", False),
        (OPEN, None, "private", True),
        (OPEN, "open", "private", False),
        (OPEN, "private", "open", True),
        (OPEN, "Private ", "open", True),  # of a record from before values were checked
        (PRIVATE, None, "open", True),
        (PRIVATE, "open", "open", True),
    ],
)
def test_private_wins(workspace: Visibility, own: str | None, server: str, private: bool) -> None:
    assert is_private(workspace, {} if own is None else {"previews": own}, server) is private


def test_a_template_fills_in_what_a_sandbox_does_not_say() -> None:
    closed = PreviewDefaults(PRIVATE, WakePolicy.OFF)
    assert with_defaults({"a": "b"}, closed) == {"a": "b", "previews": "private", "wake": "off"}
    said = {"previews": "open", "wake": "any"}
    assert with_defaults(said, closed) == said
    assert with_defaults({}, PreviewDefaults(OPEN)) == with_defaults({}, PreviewDefaults()) == {}


@pytest.mark.parametrize(
    ("policy", "who"),
    [
        (WakePolicy.ANY, {Waker.VISITOR, Waker.BEARER, Waker.MEMBER}),
        (WakePolicy.AUTHED, {Waker.BEARER, Waker.MEMBER}),
        (WakePolicy.OFF, {Waker.MEMBER}),
    ],
)
def test_who_wakes(policy: WakePolicy, who: set[Waker]) -> None:
    assert {waker for waker in Waker if may_wake(policy, waker)} == who


def test_the_policy_of_a_sandbox() -> None:
    assert wake_policy({}) is wake_policy({"wake": "weekly"}) is WakePolicy.ANY
    assert wake_policy({"wake": "off"}) is WakePolicy.OFF


@pytest.mark.parametrize("metadata", [{"previews": "closed"}, {"previews": ""}, {"wake": "OFF"}, {"wake": "never"}])
def test_values_without_a_meaning(metadata: dict[str, str]) -> None:
    with pytest.raises(BadRequestError) as refused:
        check_metadata(metadata)
    assert refused.value.field == f"metadata.{next(iter(metadata))}"

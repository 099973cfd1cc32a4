"""Real things for the tests of images: made once, kept between runs in a cache like the product's own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pandastack.images.cache import Cache


@pytest.fixture(scope="session")
def shared_cache() -> Cache:
    """Downloads and images outlive the test run; set ``PANDASTACK_TEST_CACHE`` to choose where."""
    chosen = os.environ.get("PANDASTACK_TEST_CACHE")
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Cache(Path(chosen) if chosen else home / "pandastack-tests")

"""Builds in machines of their own: equal input gives equal artifacts, and a document says where they come from."""

from pandastack.products.builds.builds import MOST_SOURCE_BYTES, HermeticBuilds, open_builds
from pandastack.products.builds.records import BuildRecord, BuildStatus
from pandastack.products.builds.spec import BuildSpec, Fetch, planned_build
from pandastack.recorder.lock import MOST_BYTES as MOST_LOCK_BYTES

__all__ = [
    "MOST_LOCK_BYTES",
    "MOST_SOURCE_BYTES",
    "BuildRecord",
    "BuildSpec",
    "BuildStatus",
    "Fetch",
    "HermeticBuilds",
    "open_builds",
    "planned_build",
]

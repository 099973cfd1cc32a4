"""CI runners: pools of prepared snapshots, and jobs that are one fresh machine each."""

from pandastack.products.runners.pools import MOST_SOURCE_BYTES
from pandastack.products.runners.runners import Runners, open_runners
from pandastack.products.runners.spec import Git, GitHub, JobSpec, PoolSpec, checked_name, checked_pool
from pandastack.products.runners.states import FINAL

__all__ = [
    "FINAL",
    "MOST_SOURCE_BYTES",
    "Git",
    "GitHub",
    "JobSpec",
    "PoolSpec",
    "Runners",
    "checked_name",
    "checked_pool",
    "open_runners",
]

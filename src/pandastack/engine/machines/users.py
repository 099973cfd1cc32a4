"""Which host users the machines of an engine get."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from pandastack.engine.layout import USER_RANGES, Layout, user_range
from pandastack.engine.machines.names import PREFIX, machine_name
from pandastack.errors import ServerError
from pandastack.host import facts
from pandastack.host.leases import exclusive_file
from pandastack.host.processes.find import named_processes, user_of


@contextmanager
def own_users(layout: Layout) -> Iterator[Layout]:
    """``layout`` with a range of host users that no other engine's machines have, reserved while the block runs.

    Several data directories may prefer the same range: the first free one is taken. Machines outlive an engine that was
    killed, so a range is not free while they run.
    """
    if not facts.is_root():
        yield layout
        return
    for step in range(USER_RANGES):
        tried = replace(layout, chosen_range=(layout.user_range + step) % USER_RANGES)
        with exclusive_file(tried.users_lock) as taken:
            if taken and not _has_foreign_machines(tried):
                yield tried
                return
    raise ServerError("all host users for machines are taken by other engines on this host")


def _has_foreign_machines(layout: Layout) -> bool:
    own = machine_name(layout.tag, "")
    users = (user_of(process.pid) for process, name in named_processes(PREFIX) if not name.startswith(own))
    return any(user is not None and user_range(user) == layout.user_range for user in users)

"""Whether this host can have slots, determined by trying what they need of its kernel."""

from __future__ import annotations

import os
import secrets

from pandastack.errors import PandastackError
from pandastack.host import facts
from pandastack.model.network import FORBIDDEN, OPEN
from pandastack.network import devices, nft
from pandastack.network.gate import Gate
from pandastack.network.host_networks import read_routes
from pandastack.network.policy_rules import plan_policy_rules
from pandastack.network.pool import refuse_clash
from pandastack.network.rules import plan_slot_rules
from pandastack.network.subnets import Subnets
from pandastack.network.thread import NETNS, remove, run_in_new

_MAC = "52:54:00:12:34:56"
_MTU = 1400


def find_obstacle(subnets: Subnets) -> tuple[str, str] | None:
    """Why sandboxes have no network here, and what helps; ``None``: they have one. Blocks for some milliseconds."""
    if not facts.is_root():
        return "only root can make network slots: sandboxes have no network", "run as root"
    if facts.program("nft") is None:
        return "nft is missing: sandboxes have no network", "apt-get install nftables"
    try:
        refuse_clash(subnets, read_routes())
        _make_half()
    except PandastackError as error:
        return error.message, error.hint or "use a kernel with tun, veth and nf_tables"
    except OSError as error:
        return f"network slots cannot be made: {error}", "use a kernel with tun, veth and nf_tables, and CAP_SYS_ADMIN"
    return None


def gate_shuts_itself() -> bool:
    """Whether the gate shuts with its process, determined by opening one in a namespace of its own."""
    netns = NETNS / f"pandastack-trial-{secrets.token_hex(4)}"
    try:
        opened = run_in_new(netns, Gate(netns.name[-8:]).open)
    except OSError:
        return False
    finally:
        remove(netns)
    if opened is not None:
        os.close(opened)
    return opened is not None


def _make_half() -> None:
    """A slot without a way to the host."""
    netns = NETNS / f"pandastack-trial-{secrets.token_hex(4)}"

    def inside() -> None:
        devices.set_up_namespace()
        tap = devices.open_tap()
        try:
            nft.apply(plan_slot_rules(_MAC, FORBIDDEN) + plan_policy_rules(OPEN, frozenset()))
            devices.set_up_tracking()
            devices.set_up_tap(_MAC, _MTU)
        finally:
            os.close(tap)

    try:
        run_in_new(netns, inside)
    finally:
        remove(netns)

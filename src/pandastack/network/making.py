"""Making, adopting and removing slots. Everything here blocks: making one takes some 30 ms, so it is done ahead."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from pandastack.errors import NotFoundError, PandastackError, ServerError
from pandastack.model.network import OPEN
from pandastack.network import conntrack, devices, links, nft
from pandastack.network.host_networks import read_routes
from pandastack.network.policy_rules import plan_policy_rules
from pandastack.network.rules import plan_slot_rules
from pandastack.network.slot import UPLINK, Listeners, NetworkSlot, get_slot_number, slot_name
from pandastack.network.subnets import Subnets
from pandastack.network.thread import NETNS, remove, run_in, run_in_new

COMING_UP_SECONDS = 5.0
"""How long the way out of a new slot may take until it carries packets; a millisecond is usual."""

TAKEOVER_SECONDS = 5.0
"""How long the addresses in an adopted slot may still be in use."""

T = TypeVar("T")


@dataclass(frozen=True)
class Recipe:
    """What all slots of an installation have in common."""

    tag: str
    subnets: Subnets
    forbidden: Sequence[str]
    """Networks that no guest reaches, the host's own among them."""
    guest_mac: str
    mtu: int
    logs: bool = True
    """Whether the kernel reports what the slots' packet filters refuse."""


@dataclass(frozen=True)
class Made:
    """A slot with its descriptors."""

    slot: NetworkSlot
    listeners: Listeners

    def close(self) -> None:
        """Close this process's descriptors."""
        for fd in (self.slot.tap, *self.listeners.descriptors):
            if fd is not None:
                os.close(fd)


def make_slot(recipe: Recipe, number: int) -> Made:
    """A new slot with the default policy. Raises :class:`ServerError`, and leaves nothing behind then."""
    name = slot_name(recipe.tag, number)
    host_address, address = recipe.subnets.addresses(number)
    slot = NetworkSlot(number, name, NETNS / name, None, host_address, address)
    rules = plan_slot_rules(recipe.guest_mac, recipe.forbidden, logs=recipe.logs)
    with ExitStack() as undo:
        host = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        undo.callback(os.close, host)

        def inside() -> Made:
            devices.set_up_namespace()
            with ExitStack() as opened:
                tap = devices.open_tap()
                opened.callback(os.close, tap)
                nft.apply(rules + plan_policy_rules(OPEN, frozenset()))  # before anything can move
                devices.set_up_tracking()
                devices.set_up_tap(recipe.guest_mac, recipe.mtu)
                devices.make_way_out(name, host, host_address, address, recipe.mtu)
                listeners = devices.open_listeners(logs=recipe.logs)
                opened.pop_all()
            return Made(replace(slot, tap=tap), listeners)

        return _mapped(name, lambda: _set_up_both_ends(recipe, slot, inside))


def _set_up_both_ends(recipe: Recipe, slot: NetworkSlot, inside: Callable[[], Made]) -> Made:
    assert slot.netns is not None
    made = run_in_new(slot.netns, inside)
    try:
        devices.set_up_host_end(slot.name, slot.host_address)
        run_in(slot.netns, partial(links.wait_running, UPLINK, COMING_UP_SECONDS))
    except BaseException:
        made.close()
        remove_slots([slot.name])
        raise
    return made


def adopt_slot(recipe: Recipe, name: str) -> Made:
    """A slot that a former server has left with a living machine in it. It keeps its rules and its connections.

    Raises :class:`NotFoundError` when it is gone.
    """
    route = next((each for each in read_routes() if each.device == name), None)
    if route is None or not (NETNS / name).exists():
        raise NotFoundError(f"the network slot {name} is gone")
    host_address, address = (str(route.network.network_address + end) for end in (1, 2))
    slot = NetworkSlot(get_slot_number(recipe.tag, name), name, NETNS / name, None, host_address, address)
    listeners = _mapped(name, lambda: run_in(NETNS / name, partial(_open_listeners_again, recipe.logs)))
    return Made(slot, listeners)


def _open_listeners_again(logs: bool) -> Listeners:
    """The former server's egress process ends by itself, and may not have done so yet."""
    ends = time.monotonic() + TAKEOVER_SECONDS
    while True:
        try:
            return devices.open_listeners(logs=logs)
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EBUSY) or time.monotonic() > ends:
                raise
            time.sleep(0.05)


def remove_slots(names: Sequence[str], addresses: Sequence[str] = ()) -> None:
    """Remove slots, used or broken ones. ``addresses`` are theirs: the host forgets their connections."""
    failures: list[Exception] = []
    for name in names:  # one that cannot be removed does not keep the others
        try:
            remove(NETNS / name)
            _mapped(name, partial(links.remove, name))
        except (OSError, PandastackError) as error:
            failures.append(error)
    for address in addresses:
        with suppress(OSError):  # a connection of nobody ends by itself
            conntrack.forget_from(address)
    if failures:
        raise failures[0]


def find_slots(tag: str) -> set[str]:
    """All slots of the installation ``tag`` on this host, whole or not."""
    return {*devices.find_devices(tag), *(path.name for path in NETNS.glob(f"{slot_name(tag, 0)[:-4]}*"))}


def _mapped(name: str, work: Callable[[], T]) -> T:
    try:
        return work()
    except PandastackError:
        raise
    except OSError as error:
        message = f"the network slot {name} failed: {error}"
        raise ServerError(message, public="the network is not available") from error

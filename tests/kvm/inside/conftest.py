"""Runs in the box only: there ``/dev/kvm`` must work, so nothing here is skipped for want of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pandastack import Client
from tests.support.installation import Install, Installation, Server


@pytest.fixture(scope="session")
def host(lasting_install: Install) -> Installation:
    """An installation in the box with ``base`` baked with KVM; a server there refuses anything weaker."""
    return lasting_install("base", PANDASTACK_REQUIRE="kvm,user,netns", PANDASTACK_READY_MACHINES="1")


@pytest.fixture(scope="session")
def kvm(host: Installation) -> Iterator[Server]:
    with host.serving() as server:
        yield server


@pytest.fixture(scope="session")
def kvm_client(kvm: Server) -> Iterator[Client]:
    with Client(api_url=kvm.url, api_key=kvm.token, timeout=600) as client:
        yield client

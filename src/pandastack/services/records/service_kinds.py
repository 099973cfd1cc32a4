"""What is behind the services that network policies list: one class for each kind.

Another kind is one more class here, or in the product that has such things, and one more entry in
:data:`~pandastack.model.services.KINDS`. A kind that nobody has registered has no services yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pandastack.errors import BadRequestError, NotFoundError
from pandastack.model.services import SANDBOX, Service, listed, parse_service
from pandastack.services.records.registry import Registry
from pandastack.store.sandboxes import SandboxRecord, Status


@dataclass(frozen=True, slots=True)
class Place:
    """Where a service is: a port of a sandbox. ``port`` None: the service that was asked for states none."""

    record: SandboxRecord
    port: int | None


class Kind(Protocol):
    """Services of one kind."""

    def find(self, workspace: str, service: Service) -> Place | None:
        """Where ``service`` is; None: ``workspace`` has no such service."""
        ...


class SandboxPorts:
    """What listens at a port of a sandbox."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def find(self, workspace: str, service: Service) -> Place | None:
        record = self._registry.find(service.id)
        if record is None or record.workspace != workspace or record.product is not None:
            return None
        return Place(record, service.port)


class ServiceKinds:
    """All kinds. Services of other workspaces and those that do not exist are answered alike."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self.kinds: dict[str, Kind] = {SANDBOX: SandboxPorts(registry)}

    def check(self, workspace: str, services: Sequence[str], field: str, former: Sequence[str] = ()) -> None:
        """Raise :class:`BadRequestError` if a policy lists what ``workspace`` does not have.

        ``field`` is the place of the list in the request. What a policy has listed before, ``former``, may be gone.
        """
        for index, text in enumerate(services):
            if text not in former:
                self.check_one(workspace, text, f"{field}[{index}]")

    def check_one(self, workspace: str, text: str, field: str) -> None:
        """The same for one service. Kinds that nobody has registered are accepted: they have none yet."""
        service = parse_service(text)
        if service is None or ((kind := self.kinds.get(service.kind)) and kind.find(workspace, service) is None):
            raise BadRequestError(f"{field}: there is no {text[:80]} in this workspace", field=field)

    def place_for(self, caller: str, text: str) -> Place:
        """Where the service ``text`` is, for the sandbox ``caller``, whose policy lists it.

        Raises :class:`NotFoundError` for what it does not list, what its workspace does not have and what has no port.
        """
        record, service = self._registry.find(caller), parse_service(text)
        if record is not None and service is not None and listed(_services_of(record), service):
            kind = self.kinds.get(service.kind)
            found = kind.find(record.workspace, service) if kind else None
            if found and found.port and found.record.status not in (Status.CREATING, Status.STOPPING):
                return found
        raise NotFoundError(f"there is no service {text[:80]}")


def _services_of(record: SandboxRecord) -> list[str]:
    return [str(each) for each in (record.network or {}).get("services", ())]

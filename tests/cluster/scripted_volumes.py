"""The volumes of the scripted engine: sizes, sources and who has them; they have no contents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pandastack.contract.codec import check_request
from pandastack.contract.fields import Uuid
from pandastack.contract.volumes import (
    AttachVolume,
    CreateVolume,
    GrowOwnVolume,
    GrowVolume,
    MountRef,
    OwnVolume,
    VolumeFrom,
    VolumeInfo,
    VolumeRef,
)
from pandastack.engine.http.messages import answer, received
from pandastack.errors import BadRequestError, ConflictError, NotFoundError


class ScriptedVolumes:
    """``enter`` is told each action with its volume, and may refuse it. ``exists`` says whether a sandbox is there."""

    def __init__(self, enter: Callable[[str, str], object], exists: Callable[[str], bool]) -> None:
        self._enter = enter
        self._exists = exists
        self.disks: dict[str, VolumeInfo] = {}
        self.sources: dict[str, VolumeFrom | None] = {}
        """What each volume was made of."""
        self.attached: dict[str, tuple[AttachVolume, ...]] = {}
        """By sandbox."""
        self.not_mounted = {"/mnt/none"}
        """Paths that no sandbox has a volume at."""
        self.grown: dict[str, OwnVolume] = {}
        """What sandboxes have grown of their own."""
        one = "/volumes/{id}"
        self.routes = [
            Route("/volumes", self._create, methods=["POST"]),
            Route("/volumes", self._list, methods=["GET"]),
            Route(one, self._get, methods=["GET"]),
            Route(one, self._delete, methods=["DELETE"]),
            Route(f"{one}/grow", self._grow, methods=["POST"]),
            Route("/sandboxes/{id}/volumes/grow", self._grow_own, methods=["POST"]),
        ]

    def attach(self, sandbox_id: str, wanted: Sequence[AttachVolume]) -> None:
        """The sandbox has these volumes. One that is not there, or that another sandbox writes to, is refused."""
        for each in wanted:
            found = self.disks.get(each.volume)
            if found is None:
                raise NotFoundError(f"volumes: no volume {each.volume}", field="volumes")
            holder = self._shown(found).writer
            if holder and not each.read_only:
                raise ConflictError(f"volumes: sandbox {holder} has it", field="volumes", detail={"holder": holder})
        self.attached[sandbox_id] = tuple(wanted)

    def _shown(self, found: VolumeInfo) -> VolumeInfo:
        there = [(name, use) for name, uses in self.attached.items() if self._exists(name) for use in uses]
        mine = [(name, use.read_only) for name, use in there if use.volume == found.id]
        writer = next((name for name, read_only in mine if not read_only), None)
        return replace(found, writer=writer, readers=tuple(name for name, read_only in mine if read_only))

    def _one(self, request: Request) -> VolumeInfo:
        volume_id = check_request(Uuid, request.path_params["id"], "id")
        if volume_id not in self.disks:
            raise NotFoundError(f"volume not found: {volume_id}")
        return self._shown(self.disks[volume_id])

    async def _create(self, request: Request) -> Response:
        wanted = await received(request, CreateVolume)
        self._enter("create_volume", wanted.volume)
        if isinstance(wanted.start_from, VolumeRef) and wanted.start_from.id not in self.disks:
            raise NotFoundError(f"volume not found: {wanted.start_from.id}")
        if isinstance(wanted.start_from, MountRef) and wanted.start_from.path in self.not_mounted:
            raise NotFoundError("no volume is mounted there", field="start_from.path")
        self.sources[wanted.volume] = wanted.start_from
        self.disks[wanted.volume] = VolumeInfo(wanted.volume, wanted.size_mb, 4096)
        return answer(self.disks[wanted.volume], 201)

    async def _list(self, _request: Request) -> Response:
        return answer(tuple(map(self._shown, self.disks.values())))

    async def _get(self, request: Request) -> Response:
        return answer(self._one(request))

    async def _grow(self, request: Request) -> Response:
        wanted, found = await received(request, GrowVolume), self._one(request)
        self._enter("grow_volume", found.id)
        self.disks[found.id] = replace(self.disks[found.id], size_mb=wanted.size_mb)
        return answer(self._shown(self.disks[found.id]))

    async def _grow_own(self, request: Request) -> Response:
        wanted, sandbox_id = await received(request, GrowOwnVolume), request.path_params["id"]
        self._enter("grow_own", sandbox_id)
        if not self._exists(sandbox_id) or wanted.path in self.not_mounted:
            raise NotFoundError("no volume is mounted there", field="path")
        if sandbox_id in self.grown and wanted.size_mb < self.grown[sandbox_id].size_mb:
            raise BadRequestError("size_mb: it is larger", field="size_mb")
        self.grown[sandbox_id] = OwnVolume(wanted.path, wanted.size_mb)
        return answer(self.grown[sandbox_id])

    async def _delete(self, request: Request) -> Response:
        found = self._one(request)
        self._enter("delete_volume", found.id)
        if holder := found.writer or next(iter(found.readers), None):
            raise ConflictError(f"sandbox {holder} has the volume", detail={"holder": holder})
        del self.disks[found.id]
        return Response(status_code=204)

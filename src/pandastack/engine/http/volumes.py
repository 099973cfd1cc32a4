"""Volumes over the engine's HTTP interface."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pandastack.contract.codec import check_request
from pandastack.contract.fields import Uuid
from pandastack.contract.volumes import CreateVolume, GrowOwnVolume, GrowVolume
from pandastack.engine.http.messages import answer, received
from pandastack.engine.sandboxes.volumes import Volumes


def volume_routes() -> list[Route]:
    """The routes of volumes."""
    one = "/volumes/{id}"
    return [
        Route("/volumes", create, methods=["POST"]),
        Route("/volumes", list_volumes, methods=["GET"]),
        Route(one, get_volume, methods=["GET"]),
        Route(one, delete_volume, methods=["DELETE"]),
        Route(f"{one}/grow", grow, methods=["POST"]),
        Route("/sandboxes/{id}/volumes/grow", grow_own, methods=["POST"]),
    ]


def _volumes(request: Request) -> Volumes:
    volumes: Volumes = request.app.state.engine.volumes
    return volumes


def _target(request: Request) -> tuple[Volumes, str]:
    volume: str = check_request(Uuid, request.path_params["id"], "id")  # a UUID cannot lead out of the directory
    return _volumes(request), volume


async def create(request: Request) -> Response:
    return answer(await _volumes(request).create(await received(request, CreateVolume)), 201)


async def list_volumes(request: Request) -> Response:
    return answer(_volumes(request).list())


async def get_volume(request: Request) -> Response:
    volumes, volume = _target(request)
    return answer(volumes.get(volume))


async def delete_volume(request: Request) -> Response:
    volumes, volume = _target(request)
    await volumes.delete(volume)
    return Response(status_code=204)


async def grow(request: Request) -> Response:
    volumes, volume = _target(request)
    wanted = await received(request, GrowVolume)
    return answer(await volumes.grow(volume, wanted.size_mb))


async def grow_own(request: Request) -> Response:
    wanted = await received(request, GrowOwnVolume)
    return answer(await _volumes(request).grow_own(request.path_params["id"], wanted.path, wanted.size_mb))

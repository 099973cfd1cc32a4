"""Templates over the engine's HTTP interface."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pandastack.contract.codec import check_request
from pandastack.contract.fields import Owner
from pandastack.contract.templates import Freshness, Manifest, Template
from pandastack.engine.build.rebake import Due
from pandastack.engine.engine import Engine
from pandastack.engine.http.messages import answer
from pandastack.engine.origins.origin import Origin
from pandastack.snapshots import manifest as snapshots


def template_routes() -> list[Route]:
    """The routes of templates. ``?owner=`` says whose template is meant; without it, everybody's."""
    one = "/templates/{name}"
    return [
        Route("/templates", list_templates),
        Route(one, get_template, methods=["GET"]),
        Route(one, delete_template, methods=["DELETE"]),
    ]


async def list_templates(request: Request) -> Response:
    engine: Engine = request.app.state.engine
    return answer(tuple(template_of(each, engine.rebakes.staleness(each)) for each in engine.templates.list()))


async def get_template(request: Request) -> Response:
    engine: Engine = request.app.state.engine
    found = engine.templates.get(*_target(request))
    return answer(template_of(found, engine.rebakes.staleness(found)))


async def delete_template(request: Request) -> Response:
    engine: Engine = request.app.state.engine
    engine.warm_pool.forget(engine.templates.remove(*_target(request)))
    return Response(status_code=204)


def _target(request: Request) -> tuple[str, str]:
    """Name and owner."""
    return request.path_params["name"], check_request(Owner, request.query_params.get("owner", ""), "owner")


def template_of(origin: Origin, due: Due | None) -> Template:
    """An installed template, what its snapshot was made with, and whether it is ``due`` to be baked again."""
    found = origin.template
    return Template(
        name=found.name,
        description=found.description,
        cpu=found.cpu,
        memory_mb=found.memory_mb,
        disk_mb=found.disk_mb,
        tools=found.tools,
        aliases=found.aliases,
        category=found.category,
        base=found.base,
        env=found.env,
        version=found.version,
        image=found.image,
        size_bytes=found.size_bytes,
        built_at=found.built_at,
        manifest=_manifest(origin.snapshot.manifest),
        max_cpu=found.max_cpu,
        min_memory_mb=found.min_memory_mb,
        max_memory_mb=found.max_memory_mb,
        owner=found.owner,
        state=_state(due),
        state_reason=_reason(due),
    )


def _state(due: Due | None) -> Freshness:
    if due is None:
        return Freshness.CURRENT
    return Freshness.REBAKING if due.build and not due.error else Freshness.STALE


def _reason(due: Due | None) -> str:
    if due is None:
        return ""
    return f"{due.reason}; baking it again failed: {due.error}" if due.error else due.reason


def _manifest(found: snapshots.Manifest) -> Manifest:
    """The public part of a template: field by field, because the file on disk changes independently of the API."""
    return Manifest(
        key=found.key,
        format=found.format,
        accelerator=found.accelerator,
        vmm=found.vmm,
        cpu_flags=found.cpu_flags,
        cpus=found.cpus,
        memory_mb=found.memory_mb,
        disk_mb=found.disk_mb,
        image=found.image,
        kernel_release=found.kernel_release,
        kernel_version=found.kernel_version,
        kernel_sha256=found.kernel_sha256,
        quiet=found.at_frame_boundary,
        built_at=found.built_at,
        parent=found.parent,
        bake_seconds=found.bake_seconds,
    )

"""Templates over the engine's HTTP interface."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pandastack.contract.templates import Manifest, Template
from pandastack.engine.http.messages import answer
from pandastack.engine.origins.catalog import Templates
from pandastack.engine.origins.origin import Origin
from pandastack.snapshots import manifest as snapshots


def template_routes() -> list[Route]:
    """The routes of templates."""
    return [Route("/templates", list_templates), Route("/templates/{name}", get_template)]


async def list_templates(request: Request) -> Response:
    templates: Templates = request.app.state.engine.templates
    return answer(tuple(map(template_of, templates.list())))


async def get_template(request: Request) -> Response:
    templates: Templates = request.app.state.engine.templates
    return answer(template_of(templates.get(request.path_params["name"])))


def template_of(origin: Origin) -> Template:
    """An installed template and what its snapshot was made with."""
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
    )


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
    )

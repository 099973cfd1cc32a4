"""Health, version, metrics: no credentials needed."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from pandastack.api import metrics, version
from pandastack.api.models.system import Health, Version
from pandastack.api.requests import json_response, plane_of
from pandastack.model.node import LOCAL_NODE

_TOLD = ("accelerator", "isolation", "vmm", "confinement")
"""The host, as the version routes report it."""

router = APIRouter(tags=["system"])


@router.get("/healthz", response_class=Response, responses={200: {"model": Health}, 503: {"model": Health}})
async def healthz(request: Request) -> Response:
    """Whether engine and store are healthy: 200 or 503."""
    health = Health.model_validate(await plane_of(request).health())
    return json_response(health, 200 if health.status == "ok" else 503)


@router.get("/version", response_class=Response, responses={200: {"model": Version}})
@router.get("/v1/version", response_class=Response, responses={200: {"model": Version}})
async def get_version(request: Request) -> Response:
    """The version, and how sandboxes are isolated on this host."""
    host = plane_of(request).hosts.get(LOCAL_NODE)
    facts = {} if host is None else {name: getattr(host, name) for name in _TOLD}
    return json_response(Version.model_validate(version.describe() | facts))


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def get_metrics(request: Request) -> Response:
    """Metrics in Prometheus's text format."""
    exported: metrics.Metrics = request.app.state.metrics
    return Response(exported.render(), media_type=metrics.CONTENT_TYPE)

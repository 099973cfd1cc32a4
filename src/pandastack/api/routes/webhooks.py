"""Endpoints of the workspace to which events are sent."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from pandastack.api.idempotency import PARAMETER, idempotent
from pandastack.api.models.schema import takes
from pandastack.api.models.webhooks import (
    ChangeWebhook,
    CreateWebhook,
    RotateWebhookSecret,
    Webhook,
    WebhookDeliveries,
    WebhookDelivery,
    WebhookEvent,
    WebhookEvents,
    Webhooks,
    WebhookWithSecret,
)
from pandastack.api.requests import caller_of, json_response, plane_of, read_json
from pandastack.errors import BadRequestError
from pandastack.model.webhooks import EVENTS
from pandastack.store.webhooks import DeliveryState

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])

_LISTED = 50


@router.post(
    "",
    status_code=201,
    response_class=Response,
    responses={201: {"model": WebhookWithSecret}},
    openapi_extra=takes(CreateWebhook, PARAMETER),
)
@idempotent(secret=True)
async def create_webhook(request: Request) -> Response:
    """Have events sent to a URL. The answer has the secret that they are signed with, this once."""
    wanted = (await read_json(request, CreateWebhook)).wanted()
    made = await plane_of(request).webhooks.create(caller_of(request), wanted)
    return json_response(WebhookWithSecret.made(made), 201)


@router.get("", response_class=Response, responses={200: {"model": Webhooks}})
async def list_webhooks(request: Request) -> Response:
    """The workspace's webhooks, oldest first, without secrets."""
    found = plane_of(request).webhooks.list(caller_of(request))
    return json_response(Webhooks(webhooks=[Webhook.of(each) for each in found]))


@router.get("/events", response_class=Response, responses={200: {"model": WebhookEvents}})
async def list_webhook_events(request: Request) -> Response:
    """The types of events that there are."""
    types = [WebhookEvent(type=name, description=text) for name, text in EVENTS.items()]
    return json_response(WebhookEvents(events=types))


@router.get("/{webhook_id}", response_class=Response, responses={200: {"model": Webhook}})
async def get_webhook(request: Request, webhook_id: str) -> Response:
    """One webhook, without its secret."""
    return json_response(Webhook.of(plane_of(request).webhooks.get(caller_of(request), webhook_id)))


@router.patch(
    "/{webhook_id}",
    response_class=Response,
    responses={200: {"model": Webhook}},
    openapi_extra=takes(ChangeWebhook),
)
async def change_webhook(request: Request, webhook_id: str) -> Response:
    """Change a webhook. One that is enabled again gets what has waited for it."""
    wanted = (await read_json(request, ChangeWebhook)).wanted()
    return json_response(Webhook.of(await plane_of(request).webhooks.change(caller_of(request), webhook_id, wanted)))


@router.delete("/{webhook_id}", status_code=204, response_class=Response)
async def delete_webhook(request: Request, webhook_id: str) -> Response:
    """Delete a webhook with its log. What waits for it is not sent."""
    await plane_of(request).webhooks.delete(caller_of(request), webhook_id)
    return Response(status_code=204)


@router.post(
    "/{webhook_id}/rotate-secret",
    response_class=Response,
    responses={200: {"model": WebhookWithSecret}},
    openapi_extra=takes(RotateWebhookSecret),
)
async def rotate_webhook_secret(request: Request, webhook_id: str) -> Response:
    """Give a webhook another secret. For a day, or `overlap_seconds`, deliveries have signatures by both."""
    body = await read_json(request, RotateWebhookSecret)
    made = await plane_of(request).webhooks.rotate(caller_of(request), webhook_id, body.overlap_seconds)
    return json_response(WebhookWithSecret.made(made))


@router.post(
    "/{webhook_id}/test", status_code=202, response_class=Response, responses={202: {"model": WebhookDelivery}}
)
async def test_webhook(request: Request, webhook_id: str) -> Response:
    """Send the event `webhook.test`, whatever its filter."""
    sent = await plane_of(request).webhooks.test(caller_of(request), webhook_id)
    return json_response(WebhookDelivery.of(sent), 202)


@router.get("/{webhook_id}/deliveries", response_class=Response, responses={200: {"model": WebhookDeliveries}})
async def list_webhook_deliveries(
    request: Request, webhook_id: str, limit: int = _LISTED, state: str | None = None
) -> Response:
    """What was sent and what waits, newest first: 50 deliveries or `limit`, of all states or one."""
    if state is not None and state not in tuple(DeliveryState):
        hint = ", ".join(DeliveryState)
        raise BadRequestError("state: there is no such state", field="state", hint=f"one of {hint}")
    wanted = None if state is None else DeliveryState(state)
    found = await plane_of(request).webhooks.deliveries(caller_of(request), webhook_id, limit, wanted)
    return json_response(WebhookDeliveries(deliveries=[WebhookDelivery.of(each) for each in found]))


@router.get(
    "/{webhook_id}/deliveries/{delivery_id}", response_class=Response, responses={200: {"model": WebhookDelivery}}
)
async def get_webhook_delivery(request: Request, webhook_id: str, delivery_id: str) -> Response:
    """One delivery."""
    found = await plane_of(request).webhooks.delivery(caller_of(request), webhook_id, delivery_id)
    return json_response(WebhookDelivery.of(found))


@router.post(
    "/{webhook_id}/deliveries/{delivery_id}/redeliver",
    status_code=202,
    response_class=Response,
    responses={202: {"model": WebhookDelivery}},
)
async def redeliver_webhook(request: Request, webhook_id: str, delivery_id: str) -> Response:
    """Send a delivery once more, with the same id."""
    found = await plane_of(request).webhooks.redeliver(caller_of(request), webhook_id, delivery_id)
    return json_response(WebhookDelivery.of(found), 202)

"""``pandastack webhook``: where events of the workspace are sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pandastack.cli.connection import connect, delete_each
from pandastack.cli.output import Json, note, print_fields, print_json, print_table, result

if TYPE_CHECKING:
    from pandastack.sdk._webhooks import Webhook, WebhookDelivery

group = typer.Typer(no_args_is_help=True, help="Have events sent to a URL, signed.", rich_markup_mode=None)

Id = Annotated[str, typer.Argument(metavar="ID", help="The webhook's id.")]
Event = Annotated[
    list[str] | None,
    typer.Option("--event", metavar="TYPE", help="A type of event, sandbox.* or *; repeatable. By default all."),
]
Description = Annotated[str | None, typer.Option("--description", metavar="TEXT", help="A line for people.")]


@group.command()
def create(
    url: Annotated[str, typer.Argument(metavar="URL", help="Where events are sent: https://…")],
    event: Event = None,
    description: Description = None,
    json: Json = False,
) -> None:
    """Have events sent to a URL. The secret that they are signed with is shown this once."""
    with connect() as client:
        _with_secret(client.webhooks.create(url, event, description=description), json)


@group.command("list")
def list_(json: Json = False) -> None:
    """List the webhooks, without their secrets."""
    with connect() as client:
        found = client.webhooks.list()
    if json:
        print_json(found)
        return
    rows = [(each["id"], each["url"], each["events"], _state(each)) for each in found]
    print_table(("ID", "URL", "EVENTS", "STATE"), rows)


@group.command()
def get(webhook: Id, json: Json = False) -> None:
    """Show one webhook."""
    with connect() as client:
        _show(client.webhooks.get(webhook), json)


@group.command()
def update(
    webhook: Id,
    url: Annotated[str | None, typer.Option("--url", metavar="URL", help="Another address.")] = None,
    event: Event = None,
    description: Description = None,
    enable: Annotated[bool | None, typer.Option("--enable/--disable", help="Send again, or nothing more.")] = None,
    json: Json = False,
) -> None:
    """Change a webhook. One that is enabled again gets what has waited for it."""
    with connect() as client:
        changed = client.webhooks.update(webhook, url=url, events=event, description=description, enabled=enable)
    _show(changed, json)


@group.command()
def delete(
    webhooks: Annotated[list[str], typer.Argument(metavar="ID", help="The webhooks' ids.")], json: Json = False
) -> None:
    """Delete webhooks with their logs. The others are deleted even when one cannot be."""
    with connect() as client:
        delete_each(webhooks, client.webhooks.delete, json)


@group.command()
def rotate(
    webhook: Id,
    overlap: Annotated[
        float | None,
        typer.Option("--overlap", min=0, metavar="SECONDS", help="How long both secrets count; by default a day."),
    ] = None,
    json: Json = False,
) -> None:
    """Give a webhook another secret; the former one counts for a while."""
    with connect() as client:
        _with_secret(client.webhooks.rotate(webhook, overlap_seconds=overlap), json)


@group.command()
def test(webhook: Id, json: Json = False) -> None:
    """Send a test event."""
    with connect() as client:
        sent = client.webhooks.test(webhook)
    result(dict(sent), sent["id"], as_json=json)


@group.command()
def deliveries(
    webhook: Id,
    limit: Annotated[int, typer.Option("--limit", min=1, max=500, help="How many, newest first.")] = 50,
    state: Annotated[str | None, typer.Option("--state", metavar="STATE", help="pending, delivered or failed.")] = None,
    json: Json = False,
) -> None:
    """Show what was sent and what waits, newest first."""
    with connect() as client:
        found = client.webhooks.deliveries(webhook, limit=limit, state=state)
    if json:
        print_json(found)
        return
    rows = [
        (each["id"], each.get("type"), _outcome(each), each.get("attempts"), each.get("created_at")) for each in found
    ]
    print_table(("ID", "EVENT", "STATE", "ATTEMPTS", "CREATED"), rows)


@group.command()
def redeliver(
    webhook: Id,
    delivery: Annotated[str, typer.Argument(metavar="DELIVERY", help="The delivery's id.")],
    json: Json = False,
) -> None:
    """Send a delivery once more, with the same id."""
    with connect() as client:
        sent = client.webhooks.redeliver(webhook, delivery)
    result(dict(sent), sent["id"], as_json=json)


def _show(webhook: Webhook, json: bool) -> None:
    if json:
        print_json(webhook)
    else:
        print_fields(webhook)


def _with_secret(webhook: Webhook, json: bool) -> None:
    if json:
        print_json(webhook)
        return
    print_fields({"id": webhook["id"], "url": webhook["url"], "secret": webhook["secret"]})
    note("the secret is not shown again")


def _state(webhook: Webhook) -> str:
    if webhook.get("enabled"):
        return f"failing since {webhook['failing_since']}" if webhook.get("failing_since") else "enabled"
    return f"disabled: {webhook['disabled_reason']}" if webhook.get("disabled_reason") else "disabled"


def _outcome(delivery: WebhookDelivery) -> str:
    why = delivery.get("error") or delivery.get("status")
    return f"{delivery['state']} ({why})" if why else delivery["state"]

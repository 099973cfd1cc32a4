"""What endpoints may be, how deliveries are signed, and what follows an attempt: pure."""

from __future__ import annotations

import dataclasses
import time

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from pandastack.errors import BadRequestError
from pandastack.model.webhooks import EVENTS, Occurrence, is_filter, wants
from pandastack.services.records.outbox import LONGEST_BODY, body_of, event_id
from pandastack.services.webhooks.outside import Answer
from pandastack.services.webhooks.retries import DISABLE_SECONDS, JITTER, MOST_ATTEMPTS, plan_next, plan_pause
from pandastack.services.webhooks.signing import SigningSecret, new_secret
from pandastack.services.webhooks.spec import checked_description, checked_events, checked_url, literal_address
from pandastack.store.webhooks import DeliveryRecord, DeliveryState, EndpointRecord

ENDPOINT = EndpointRecord("e", "default", "https://x.example/", ("*",), "", True, 1.0)
DELIVERY = DeliveryRecord("d", "e", "msg_1", "build.ended", b"{}", 1.0, 1.0)
YEAR_2100 = 4_102_444_800.0


@pytest.mark.parametrize(
    "url",
    ["https://x.example", "https://x.example:8443/a?b=c", "https://1.2.3.4/", "https://xn--bcher-kva.example/"],
)
def test_addresses_that_are_taken(url: str) -> None:
    assert checked_url(url, plain=False) == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "x.example",
        "ftp://x.example/",
        "http://x.example/",
        "file:///etc/passwd",
        "https://",
        "https:///x",
        "https://u@x.example/",
        "https://u:p@x.example/",
        "https://x.example/#f",
        "https://x.example/#",
        "https://x.example:0/",
        "https://x.example:99999/",
        "https://x.example:a/",
        "https://[::1]/",
        "https://x.example/ü",
        "https://x.example/a b",
        "https://x.example/\r\nx: y",
        "https://x.example\\@y.example/",
        "https://x.example/" + "a" * 2048,
    ],
)
def test_addresses_that_are_refused(url: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        checked_url(url, plain=False)
    assert caught.value.field == "url"


def test_http_only_where_the_operator_allows_networks() -> None:
    assert checked_url("http://x.example/", plain=True)
    assert str(literal_address("http://10.0.0.1:80/")) == "10.0.0.1" and literal_address("http://x.example/") is None


def test_filters() -> None:
    assert checked_events(None) == ("*",) and checked_events(["build.ended"] * 2) == ("build.ended",)
    assert wants(["*"], "build.ended") and wants(["build.*"], "build.ended") and wants(["build.ended"], "build.ended")
    assert not wants(["sandbox.*", "database.ready"], "build.ended")
    assert all(map(is_filter, EVENTS))
    for wrong in ("build", "build.", "*.ended", "build.**", "", ".*"):
        with pytest.raises(BadRequestError) as caught:
            checked_events([wrong])
        assert caught.value.field == "events" and caught.value.hint
    with pytest.raises(BadRequestError):
        checked_events([f"{each}.{n}" for n in range(6) for each in EVENTS])
    with pytest.raises(BadRequestError):
        checked_description("two\nlines")


def test_an_event_with_a_key_has_one_id_and_others_have_their_own() -> None:
    keyed = Occurrence("w", "build.ended", "b", key="ended")
    assert (
        event_id(keyed)
        == event_id(dataclasses.replace(keyed, at=5.0))
        != event_id(dataclasses.replace(keyed, workspace="v"))
    )
    assert event_id(dataclasses.replace(keyed, key=None)) != event_id(dataclasses.replace(keyed, key=None))


@pytest.mark.parametrize("error", ["x" * LONGEST_BODY, "\udc80"])
def test_data_that_cannot_be_sent_is_left_out(error: str) -> None:
    body = body_of(Occurrence("w", "build.ended", "b", {"error": error}, at=0.0))
    assert body == b'{"type":"build.ended","timestamp":"1970-01-01T00:00:00.000Z","data":{"id":"b","truncated":true}}'


def test_the_reference_receiver_accepts_our_signatures_and_refuses_others() -> None:
    secret, now = SigningSecret(new_secret()), YEAR_2100
    headers = secret.headers("msg_1", b'{"a":1}', now)
    with pytest.raises(WebhookVerificationError, match="too new"):
        Webhook(secret.current).verify(b'{"a":1}', headers)
    headers = secret.headers("msg_1", b'{"a":1}', time.time())
    assert Webhook(secret.current).verify(b'{"a":1}', headers) == {"a": 1}
    for changed in ({**headers, "webhook-id": "msg_2"}, {**headers, "webhook-timestamp": str(int(time.time()) - 5)}):
        with pytest.raises(WebhookVerificationError):
            Webhook(secret.current).verify(b'{"a":1}', changed)
    with pytest.raises(WebhookVerificationError):
        Webhook(new_secret()).verify(b'{"a":1}', headers)


def test_our_signature_is_that_of_the_published_example() -> None:
    """The example of the specification's reference libraries."""
    secret = SigningSecret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = secret.headers("msg_p5jXN8AQM9LWM0D4loKWxJek", b'{"test": 2432232314}', 1614265330.0)
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_former_secret_counts_for_a_while() -> None:
    first = SigningSecret(new_secret())
    both = first.rotated(100.0)
    assert both.former == first.current != both.current
    assert len(both.headers("m", b"", 99.0)["webhook-signature"].split()) == 2
    assert len(both.headers("m", b"", 100.0)["webhook-signature"].split()) == 1
    assert SigningSecret.from_text(both.to_text()) == both and first.current not in repr(both)


def test_pauses_grow_over_hours_and_are_spread() -> None:
    middle = [plan_pause(number, 5.0, 0.5) for number in range(1, MOST_ATTEMPTS)]
    assert middle == pytest.approx([5, 60, 300, 1800, 7200, 18000, 36000]) and sum(middle) > 17 * 3600
    spread = [plan_pause(1, 5.0, 0.0), plan_pause(1, 5.0, 1.0)]
    assert spread == pytest.approx([5 * (1 - JITTER), 5 * (1 + JITTER)])


def test_a_success_ends_a_delivery_and_forgets_failures() -> None:
    after = plan_next(ENDPOINT, DELIVERY, Answer(200), 10.0, 5.0, 0.5)
    assert after.delivery["state"] is DeliveryState.DELIVERED and after.delivery["ended_at"] == 10.0
    assert after.endpoint == {}
    failing = dataclasses.replace(ENDPOINT, failing_since=3.0)
    assert plan_next(failing, DELIVERY, Answer(299), 10.0, 5.0, 0.5).endpoint == {"failing_since": None}


@pytest.mark.parametrize("answer", [Answer(500), Answer(404), Answer(301), Answer(199), Answer(None, "no")])
def test_anything_else_is_tried_again_later(answer: Answer) -> None:
    after = plan_next(ENDPOINT, DELIVERY, answer, 10.0, 5.0, 0.5)
    assert after.delivery == {"attempts": 1, "status": answer.status, "error": answer.error, "due_at": 15.0}
    assert after.endpoint == {"failing_since": 10.0}


def test_the_last_attempt_fails_the_delivery_only() -> None:
    last = dataclasses.replace(DELIVERY, attempts=MOST_ATTEMPTS - 1)
    after = plan_next(ENDPOINT, last, Answer(500), 10.0, 5.0, 0.5)
    assert after.delivery["state"] is DeliveryState.FAILED and "enabled" not in after.endpoint


def test_a_long_failure_disables_and_says_why() -> None:
    failing = dataclasses.replace(ENDPOINT, failing_since=10.0)
    now = 10.0 + DISABLE_SECONDS
    assert plan_next(failing, DELIVERY, Answer(503), now - 1, 5.0, 0.5).endpoint == {}
    after = plan_next(failing, DELIVERY, Answer(503), now, 5.0, 0.5)
    assert after.endpoint["enabled"] is False and "3 days: the last answer was 503" in after.endpoint["disabled_reason"]
    assert "state" not in after.delivery, "what waits is kept for when it is enabled again"


def test_gone_ends_both_at_once() -> None:
    after = plan_next(ENDPOINT, DELIVERY, Answer(410), 10.0, 5.0, 0.5)
    assert after.delivery["state"] is DeliveryState.FAILED and "410" in after.endpoint["disabled_reason"]

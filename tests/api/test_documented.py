"""The comparison with the OpenAPI document that every test of this folder runs under finds what it is for."""

from __future__ import annotations

import httpx
import pytest
from fastapi import FastAPI, Response
from pydantic import BaseModel
from starlette.responses import StreamingResponse

from pandastack.cluster import StreamingASGITransport
from tests.support.documented import Documented, document_of

pytestmark = pytest.mark.anyio


class Inner(BaseModel):
    name: str


class Outer(BaseModel):
    inner: list[Inner]


class Error(BaseModel):
    error: str


def application(answer: Response) -> FastAPI:
    app = FastAPI(responses={"default": {"model": Error, "description": "What went wrong"}})

    @app.get("/x", response_class=Response, responses={200: {"model": Outer}})
    async def get_x() -> Response:
        return answer

    @app.delete("/x", response_class=Response, status_code=204)
    async def delete_x() -> Response:
        return answer

    return app


def as_json(text: str, status: int = 200, media_type: str = "application/json") -> Response:
    return Response(text, status, media_type=media_type)


@pytest.mark.parametrize(
    ("method", "answer", "wrong"),
    [
        ("GET", as_json('{"inner": [{"name": "a"}]}'), None),
        ("GET", as_json('{"inner": [{"name": "a", "more": 1}]}'), "more"),
        ("GET", as_json('{"inner": [{}]}'), "'name' is a required property"),
        ("GET", as_json('{"inner": [{"name": 1}]}'), "is not of type 'string'"),
        ("GET", as_json("{}", 202), "no such answer"),
        ("GET", as_json("text", 200, "text/plain"), "text/plain is not in the document"),
        ("GET", as_json('{"error": "no"}', 409), None),
        ("GET", as_json('{"error": "/var/secret/x is missing"}', 500), "names something of the host"),
        ("GET", as_json('{"error": "no", "errno": 5}', 500), "errno"),
        ("GET", StreamingResponse(iter([b'{"inner": [', b'{"other": 1}]}']), media_type="application/json"), "other"),
        ("DELETE", Response(status_code=204), None),
        ("DELETE", as_json("{}", 200), "no such answer"),
    ],
)
async def test_an_answer_that_differs_from_the_document_is_reported(
    method: str, answer: Response, wrong: str | None
) -> None:
    app, reports = application(answer), list[str]()
    transport = StreamingASGITransport(Documented(app, document_of(app), reports.append, ["/var/secret"]))
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as http:
        await http.request(method, "/x")
    assert bool(reports) == (wrong is not None)
    assert wrong is None or wrong in " ".join(reports)

"""The wire contract as far as it names routes, and what of it is not served yet. The one place for the latter.

A route is written ``METHOD /path`` with ``{}`` for what varies, ``WS`` for a WebSocket. When the server begins to serve
one of :data:`NOT_SERVED`, a test fails until it is driven here (a scenario in ``drivers``, or a name in :data:`PLAIN`)
and its line is gone. The numbers are the sections of the contract.
"""

from __future__ import annotations

S = "/v1/sandboxes/{}"


def routes(text: str) -> frozenset[str]:
    """``METHOD path`` pairs; ``S`` at the beginning of a path stands for one sandbox."""
    words = text.split()
    paths = (S + path[1:] if path.startswith("S") else path for path in words[1::2])
    return frozenset(f"{method} {path}" for method, path in zip(words[::2], paths, strict=True))


SECTIONS = {
    2: routes("""GET /v1/me  GET /v1/me/tokens  POST /v1/me/tokens  DELETE /v1/me/tokens/{}  POST /v1/me/current-org
        GET /v1/orgs  POST /v1/orgs  GET /v1/orgs/{}  GET /v1/orgs/{}/members  POST /v1/orgs/{}/members
        DELETE /v1/orgs/{}/members/{}  POST /v1/orgs/invites/{}/accept"""),
    3: routes("POST /v1/sandboxes  GET /v1/sandboxes  GET S  DELETE S"),
    4: routes("POST S/exec  POST S/exec/stream  WS S/exec/ws  WS S/exec/pty  WS S/ssh"),
    5: routes("GET S/fs  PUT S/fs  DELETE S/fs  GET S/fs/dir  GET S/fs/stat"),
    6: routes("GET S/logs"),
    7: routes("GET S/events"),
    8: routes("""POST S/repl  GET /v1/repl/languages  POST S/repl/sessions  GET S/repl/sessions
        POST S/repl/sessions/{}/run  DELETE S/repl/sessions/{}"""),
    9: routes("WS S/lsp/{}  GET /v1/lsp/languages"),
    10: routes("""POST S/pause  POST S/resume  POST S/hibernate  POST S/stop  POST S/wake  POST S/start
        GET S/lifecycle  PATCH S/lifecycle"""),
    11: routes("POST S/snapshots  GET /v1/snapshots  GET /v1/snapshots/{}  DELETE /v1/snapshots/{}"),
    12: routes("POST S/fork  POST S/fork-tree  POST S/promote"),
    13: routes("""GET S/ports  POST S/ports  DELETE S/ports/{}  GET S/proxy/{}/{}  POST S/preview-token  POST S/preview
        GET /v1/p/{}/{}"""),
    14: routes("""GET /v1/templates  GET /v1/templates/{}  DELETE /v1/templates/{}  POST /v1/templates/build
        GET /v1/templates/builds  GET /v1/templates/builds/{}  GET /v1/templates/builds/{}/logs"""),
    15: routes("POST /v1/volumes  GET /v1/volumes  GET /v1/volumes/{}  DELETE /v1/volumes/{}"),
    16: routes("""POST /v1/databases  GET /v1/databases  GET /v1/databases/{}  DELETE /v1/databases/{}
        PATCH /v1/databases/{}  GET /v1/databases/{}/connection  POST /v1/databases/{}/wake  POST /v1/databases/{}/clone
        POST /v1/databases/{}/failover  POST /v1/databases/{}/reset-credentials
        GET /v1/databases/{}/proxy/v1/health  GET /v1/databases/{}/proxy/v1/info  POST /v1/databases/{}/proxy/v1/query
        POST /v1/databases/{}/proxy/v1/exec  POST /v1/databases/{}/proxy/v1/transaction
        GET /v1/databases/{}/proxy/v1/databases  POST /v1/databases/{}/proxy/v1/databases
        DELETE /v1/databases/{}/proxy/v1/databases/{}"""),
    17: routes("""POST /v1/functions  GET /v1/functions  GET /v1/functions/{}  PATCH /v1/functions/{}
        DELETE /v1/functions/{}  POST /v1/functions/{}/deploy  POST /v1/functions/{}/invoke  GET /v1/functions/{}/code
        GET /v1/functions/{}/runs  POST /v1/functions/{}/runs  GET /v1/functions/{}/metrics"""),
    18: routes("""POST /v1/schedules  GET /v1/schedules  GET /v1/schedules/{}  PATCH /v1/schedules/{}
        DELETE /v1/schedules/{}  POST /v1/schedules/{}/trigger  GET /v1/schedules/{}/runs"""),
    19: routes("""POST /v1/apps  GET /v1/apps  GET /v1/apps/{}  PATCH /v1/apps/{}  DELETE /v1/apps/{}
        POST /v1/apps/{}/deploys  GET /v1/apps/{}/deploys  GET /v1/apps/{}/deploys/{}  GET /v1/apps/{}/deploys/{}/logs
        POST /v1/apps/{}/rollback  GET /v1/apps/{}/env  PUT /v1/apps/{}/env/{}  DELETE /v1/apps/{}/env/{}
        POST /v1/apps/{}/env/import  POST /v1/apps/{}/domains  GET /v1/apps/{}/domains  GET /v1/apps/{}/domains/{}
        DELETE /v1/apps/{}/domains/{}"""),
    21: routes("POST /mcp  POST /v1/mcp  POST S/mcp"),
    22: routes("""GET /healthz  GET /version  GET /v1/version  GET /metrics  GET S/metrics  GET /v1/metrics/overview
        GET /v1/metrics/sandbox/{}  GET /v1/stats/boot  GET /v1/audit"""),
}

PLAIN = {
    "DELETE S/fs": "test_a_file_is_deleted",
    "GET S/events": "test_events",
    "GET S/metrics": "test_usage",
    "POST S/stop": "test_09_wake_is_idempotent_and_reads_of_the_record_do_not_wake",
    "POST S/start": "test_09_wake_is_idempotent_and_reads_of_the_record_do_not_wake",
    "GET /healthz": "test_health_version_and_metrics_need_no_token",
    "GET /version": "test_health_version_and_metrics_need_no_token",
    "GET /metrics": "test_health_version_and_metrics_need_no_token",
    "GET /v1/version": "test_version",
    "POST S/repl": "test_one_piece_of_code",
    "GET /v1/repl/languages": "test_one_piece_of_code",
    "GET S/repl/sessions": "test_10_a_session",
    "WS S/ssh": "test_14_a_terminal",
    "WS S/exec/pty": "test_14_a_terminal",
    "WS S/exec/ws": "test_commands_over_one_websocket",
    "WS S/lsp/{}": "test_a_language_server_that_is_not_there",
    "GET /v1/lsp/languages": "test_languages_of_servers",
    "POST /mcp": "test_agents_of_a_workspace",
    "POST /v1/mcp": "test_agents_of_a_workspace",
    "POST S/mcp": "test_agents_of_a_sandbox",
    "POST S/ports": "test_ports_with_labels",
    "DELETE S/ports/{}": "test_ports_with_labels",
    "GET S/proxy/{}/{}": "test_15_previews",
    "POST S/preview-token": "test_15_previews",
    "POST S/preview": "test_15_previews",
    "GET /v1/p/{}/{}": "test_15_previews",
    "GET /v1/functions/{}/code": "test_13_functions",
    "POST /v1/functions/{}/runs": "test_13_functions",
    "GET /v1/databases/{}/proxy/v1/health": "test_statements_over_http",
    "GET /v1/databases/{}/proxy/v1/info": "test_statements_over_http",
    "POST /v1/databases/{}/proxy/v1/query": "test_statements_over_http",
    "POST /v1/databases/{}/proxy/v1/exec": "test_statements_over_http",
    "POST /v1/databases/{}/proxy/v1/transaction": "test_statements_over_http",
    "GET /v1/databases/{}/proxy/v1/databases": "test_statements_over_http",
    "POST /v1/databases/{}/proxy/v1/databases": "test_statements_over_http",
    "DELETE /v1/databases/{}/proxy/v1/databases/{}": "test_statements_over_http",
}
"""Routes that not both SDKs call, and the test that speaks plain HTTP with each."""

NOT_SERVED = {
    "one workspace per server: organisations are optional for self-hosting": routes("""POST /v1/me/current-org
        GET /v1/orgs  POST /v1/orgs  GET /v1/orgs/{}  GET /v1/orgs/{}/members  POST /v1/orgs/{}/members
        DELETE /v1/orgs/{}/members/{}  POST /v1/orgs/invites/{}/accept"""),
    "apps are not built yet": SECTIONS[19],
    "history of metrics, boot statistics and audit are not built yet": routes("""GET /v1/metrics/overview
        GET /v1/metrics/sandbox/{}  GET /v1/stats/boot  GET /v1/audit"""),
}

METHODS_NOT_SERVED = {
    "AppsAPI.": "POST /v1/apps",
}
"""Methods of the SDKs, by the beginning of their names, and the route that each is waiting for."""

CHECKLIST_NOT_BUILT: dict[int, str] = {}
"""Items of the contract's checklist that concern nothing that is served; the reason is a key of :data:`NOT_SERVED`."""

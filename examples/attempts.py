"""One database for each attempt: several ways to make a query fast are tried at once on copies, and the best is kept.

So may an agent work: it tries what it has thought of, looks at what came of each attempt, and only the database that it
likes stays. The source is not touched.
"""

import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from pandastack import Client

PREPARE = """
CREATE TABLE events (id int PRIMARY KEY, kind text, at timestamptz);
INSERT INTO events SELECT n, 'kind ' || n % 500, timestamptz '2026-01-01' + n * interval '1 minute'
  FROM generate_series(1, 30000) AS n;
ANALYZE events;
"""
QUERY = "SELECT count(*) FROM events WHERE kind = 'kind 7' AND at > timestamptz '2026-01-10'"
ATTEMPTS = {
    "nothing": "SELECT 1",
    "an index on the time": "CREATE INDEX ON events (at)",
    "an index on both": "CREATE INDEX ON events (kind, at)",
}

client = Client()


def run(database: dict, sql: str) -> str:
    """What psql prints. The gateway's address is where the API is, whatever the database's name resolves to."""
    server = urlsplit(client.api_url).hostname or "127.0.0.1"
    where = {"PGHOST": database["host"], "PGHOSTADDR": "127.0.0.1" if server == "localhost" else server}
    who = {"PGUSER": database["username"], "PGDATABASE": database["database"], "PGPASSWORD": database["password"]}
    environment = {**os.environ, **where, **who, "PGPORT": str(database["port"]), "PGSSLMODE": "require"}
    done = subprocess.run(["psql", "-XAtqc", sql], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


made = []


def attempt(source: dict, name: str) -> tuple[float, str, dict]:
    """A copy on which this attempt was made, and what the query costs there."""
    copy = client.databases.clone(source["id"], label=f"attempt: {name}")
    made.append(copy)
    run(copy, ATTEMPTS[name])
    plan = json.loads(run(copy, f"EXPLAIN (FORMAT JSON) {QUERY}"))
    return plan[0]["Plan"]["Total Cost"], name, copy


source = client.databases.create(label="example")
made.append(source)
try:
    run(source, PREPARE)
    with ThreadPoolExecutor() as pool:
        results = sorted(pool.map(lambda name: attempt(source, name), ATTEMPTS), key=lambda each: each[0])
    (cost, name, best), *others = results
    print("the best attempt:", name)
    print("cheaper than nothing:", cost < next(each[0] for each in others if each[1] == "nothing"))
    print("answers the same:", run(best, QUERY) == run(source, QUERY))
    for _, _, other in others:
        client.databases.delete(other["id"])
        made.remove(other)
    print("kept:", ", ".join(sorted(each["label"] for each in client.databases.list())))
finally:  # an example leaves nothing
    for each in made:
        client.databases.delete(each["id"])

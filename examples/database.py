"""Try a migration on a copy of a database before it is done for real."""

import os
import subprocess
from urllib.parse import urlsplit

from pandastack import Client

client = Client()


def run(database: dict, sql: str) -> str:
    """What psql prints. The gateway's address is where the API is, whatever the database's name resolves to."""
    server = urlsplit(client.api_url).hostname or "127.0.0.1"
    where = {"PGHOST": database["host"], "PGHOSTADDR": "127.0.0.1" if server == "localhost" else server}
    who = {"PGUSER": database["username"], "PGDATABASE": database["database"], "PGPASSWORD": database["password"]}
    environment = {**os.environ, **where, **who, "PGPORT": str(database["port"]), "PGSSLMODE": "require"}
    done = subprocess.run(["psql", "-XAtqc", sql], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


database = client.databases.create(label="example")
try:
    run(database, "CREATE TABLE orders (id int PRIMARY KEY, price text); INSERT INTO orders VALUES (1, '12.50')")
    branch = client.databases.clone(database["id"], label="example: try a migration")
    try:
        run(branch, "ALTER TABLE orders ALTER price TYPE numeric USING price::numeric")
        kind = "SELECT data_type FROM information_schema.columns WHERE column_name = 'price'"
        print("in the copy:", run(branch, kind), run(branch, "SELECT sum(price) FROM orders"))
        print("in the database:", run(database, kind))
    finally:
        client.databases.delete(branch["id"])
finally:
    client.databases.delete(database["id"])

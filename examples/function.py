"""Deploy a function that has imported pandas, and see that its calls have nothing in common."""

from pandastack import Client

SOURCE = """
import pandas

calls = []


def handler(event, context):
    calls.append(event)
    return {"calls": len(calls), "total": int(pandas.Series(event["prices"]).sum())}
"""

client = Client()
function = client.functions.create("example-totals", code=SOURCE)
try:
    for prices in ([1, 2, 3], [4, 5, 6]):
        run = client.functions.invoke(function["id"], input={"prices": prices})
        print(run["status"], run["result"], run["duration_ms"], "ms")
finally:
    client.functions.delete(function["id"])

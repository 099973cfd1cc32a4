"""The official clients, unmodified, against a real server and real machines.

Each client lives in an environment of its own, because the official Python SDK has the name of ours. The scripts in
``drivers`` use a client as its documentation says and print what they saw as JSON; the tests judge it. What of the
wire contract is not served yet stands in one place, :mod:`tests.conformance.contract`; a test holds it to the server.
"""

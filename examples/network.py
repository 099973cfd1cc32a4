"""Let a sandbox reach the package index and nothing else, and see what else it wanted."""

from pandastack import Sandbox

INDEX = {"egress": {"allow": ["pypi.org:443", "files.pythonhosted.org:443"]}}

with Sandbox.create("code-interpreter", network=INDEX, ttl_seconds=300) as sandbox:
    sandbox.exec("curl -sS -m 5 https://example.org || true")
    for record in sandbox.network.log():
        print("allowed" if record.allowed else "denied ", record.via, record.name or record.address, record.rule)
    print(sandbox.network.check("example.org", 443)["how_to_allow"])

"""Who a guest of a test is told to be."""

from __future__ import annotations

from pandastack.guest import Identity

IDENTITY = Identity(hostname="box", machine_id="0" * 32, env={"SANDBOX": "yes"})

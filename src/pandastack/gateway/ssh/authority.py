"""The control plane's word on who may log in."""

from __future__ import annotations

from collections.abc import Sequence

from pandastack.gateway.control import Control


class ControlAuthority:
    """Asks the control plane's internal interface."""

    def __init__(self, control: Control) -> None:
        self._control = control

    async def allows(self, sandbox: str, fingerprint: str) -> bool:
        """Whether the owner of the key with this fingerprint (``SHA256:…``) may use the sandbox."""
        answer = await self._control.ask("/internal/ssh/authorize", {"sandbox": sandbox, "fingerprint": fingerprint})
        return answer.get("allowed") is True

    async def revoked(self, logins: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
        """Those of ``logins`` (sandbox and fingerprint) whose key is gone."""
        told = [{"sandbox": sandbox, "fingerprint": fingerprint} for sandbox, fingerprint in logins]
        answer = await self._control.ask("/internal/ssh/revoked", {"logins": told})
        return {(each["sandbox"], each["fingerprint"]) for each in answer["revoked"]}

    async def announce(self, port: int, host_key: str) -> None:
        """Tell where the door listens, and its public key (a line as in ``known_hosts``, without the host)."""
        await self._control.ask("/internal/ssh/door", {"port": port, "host_key": host_key})

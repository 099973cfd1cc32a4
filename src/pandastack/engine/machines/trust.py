"""Makes the programs of a guest trust the secret broker's certificate authority."""

from __future__ import annotations

from pandastack.errors import GuestError
from pandastack.guest import Channel, ExecRequest
from pandastack.in_guest import trust_script

_DEADLINE = 60.0


async def install_authority(channel: Channel, certificate: str) -> None:
    """Put the certificate (PEM) where the guest's programs look; one that is there already stays.

    Raises :class:`GuestError` with what the guest's shell printed.
    """
    request, printed = ExecRequest(cmd=trust_script(), stdin=True, timeout_s=_DEADLINE), b""
    async with channel.exec(request) as process:
        await process.send_stdin(certificate.encode())
        await process.close_stdin()
        async for _, piece in process.output():
            printed = (printed + piece)[-2048:]
    if process.result.exit_code != 0:
        text = printed.decode("utf-8", "replace").strip()
        raise GuestError(f"the guest cannot be made to trust the secret broker: {text}")

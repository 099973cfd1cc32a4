"""What every template gets on top of its image: the module that makes warm Python programs differ between copies, and
the server of kernels, for templates that start it when they are warmed up.

Where there is sudo there is also an ordinary user, "user", who may become root without a password.

The module goes beside the standard library of each Python that is found, where virtual environments see it too. All of
it is added at the bake rather than to the image, so that images from anywhere have it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from pandastack.engine.build.boot import Booted, run_in_guest
from pandastack.engine.build.progress import Steps
from pandastack.errors import BuildError, NotFoundError
from pandastack.guest import ExecRequest
from pandastack.in_guest import GENERATION, programs

DIRECTORY = "/usr/lib/pandastack"

_SCRIPT = rf"""
set -eu
umask 022
for os in /usr/lib/python3*/os.py /usr/local/lib/python3*/os.py; do
  lib=${{os%/os.py}} site=${{os%/os.py}}/sitecustomize.py
  [ -f "$os" ] || continue
  cp {DIRECTORY}/{GENERATION} "$lib"
  if ! [ -e "$site" ]; then
    printf 'import pandastack_generation\n\npandastack_generation.run_next_sitecustomize(__file__)\n' > "$site"
  elif ! grep -q pandastack_generation "$site"; then
    printf '\nimport pandastack_generation\n' >> "$site"
  fi
done
if [ -d /etc/sudoers.d ] && ! getent passwd user >/dev/null; then
  useradd --create-home --shell /bin/bash user
  echo 'user ALL=(ALL:ALL) NOPASSWD: ALL' > /etc/sudoers.d/user
  chmod 440 /etc/sudoers.d/user
fi
"""


def guest_support_text() -> list[str]:
    """Everything that determines what this module adds to an image."""
    return [_SCRIPT, *(f"{name}\n{text.decode()}" for name, text in programs().items())]


async def install_guest_support(booted: Booted, steps: Steps) -> None:
    """Install it in the guest. Raises :class:`BuildError` with the guest's message when that fails."""
    try:
        await booted.channel.stat("/bin/sh")
    except NotFoundError as error:
        hint = "use a variant of the image that has a shell, or copy one into it"
        raise BuildError("the image has no /bin/sh, which commands in a sandbox are run by", hint=hint) from error
    for name, text in programs().items():
        await booted.channel.write_file(f"{DIRECTORY}/{name}", _once(text))
    await run_in_guest(booted.channel, ExecRequest(cmd=_SCRIPT), "preparing the guest for copies", steps.progress)


async def _once(text: bytes) -> AsyncIterator[bytes]:
    yield text

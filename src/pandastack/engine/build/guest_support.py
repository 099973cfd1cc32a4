"""What every template gets that its image does not bring: the module that keeps warm Python programs apart in copies,
and the server of kernels, for templates that start it when they are warmed up.

The module is put beside the standard library of each Python that is found, where virtual environments see it too. All
of it is added at the bake and not to the image, so that images of every origin have it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from pandastack.engine.build.boot import Booted, run_in_guest
from pandastack.engine.build.progress import Steps
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
"""


def guest_support_text() -> list[str]:
    """Everything that decides how a dressed guest differs from its image."""
    return [_SCRIPT, *(f"{name}\n{text.decode()}" for name, text in programs().items())]


async def install_guest_support(booted: Booted, steps: Steps) -> None:
    """Put it in place. Raises :class:`BuildError` with what the guest said when that fails."""
    for name, text in programs().items():
        await booted.channel.write_file(f"{DIRECTORY}/{name}", _once(text))
    await run_in_guest(booted.channel, ExecRequest(cmd=_SCRIPT), "preparing Python for copies", steps.progress)


async def _once(text: bytes) -> AsyncIterator[bytes]:
    yield text

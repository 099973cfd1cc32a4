"""What every template gets that its image does not bring: the module that keeps warm Python programs apart in copies.

It is put beside the standard library of each Python that is found, where virtual environments see it too, and not into
the image, so that images of every origin have it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from pandastack.engine.boot import Booted, run_in_guest
from pandastack.engine.progress import Steps
from pandastack.guest import ExecRequest
from pandastack.guest.inside import source

_SCRIPT = r"""
set -eu
umask 022
cat > /run/pandastack/module
for os in /usr/lib/python3*/os.py /usr/local/lib/python3*/os.py; do
  lib=${os%/os.py} site=${os%/os.py}/sitecustomize.py
  [ -f "$os" ] || continue
  cp /run/pandastack/module "$lib/pandastack_generation.py"
  if ! [ -e "$site" ]; then
    printf 'import pandastack_generation\n\npandastack_generation.run_next_sitecustomize(__file__)\n' > "$site"
  elif ! grep -q pandastack_generation "$site"; then
    printf '\nimport pandastack_generation\n' >> "$site"
  fi
done
rm /run/pandastack/module
"""


def dress_text() -> list[str]:
    """Everything that decides how a dressed guest differs from its image."""
    return [_SCRIPT, source("pandastack_generation.py").decode()]


async def dress(booted: Booted, steps: Steps) -> None:
    """Put it in place. Raises :class:`BuildError` with what the guest said when that fails."""

    async def module() -> AsyncIterator[bytes]:
        yield source("pandastack_generation.py")

    request = ExecRequest(cmd=_SCRIPT, stdin=True)
    await run_in_guest(booted.channel, request, "preparing Python for copies", steps.progress, module())

"""Says what two builds made differently: by diffoscope, in a machine of its own, since what it reads may be hostile.

Source: diffoscope(1): exit status 0 without differences, 1 with some.
"""

from __future__ import annotations

from pandastack.contract.templates import Template
from pandastack.errors import PandastackError
from pandastack.products.builds.build import Build
from pandastack.products.builds.machine import Machine
from pandastack.products.builds.records import BuildFailed
from pandastack.services import ControlPlane

MOST_BYTES = 1024 * 1024
"""Of the report: its beginning."""
_SECONDS = 1200.0
_ABSENT = 127
_FIRST, _SECOND = "/srv/first", "/srv/second"
_COMMAND = f"""cd /srv && command -v diffoscope > /dev/null || exit {_ABSENT}
exec env LC_ALL=C.UTF-8 diffoscope --no-progress --max-report-size {MOST_BYTES} --text - first second 2>&1
"""


async def explain(plane: ControlPlane, build: Build, template: Template) -> str:
    """The report about the two archives of ``build``, or why there is none. It never fails a build."""
    report = bytearray()

    def take(data: bytes) -> None:
        report.extend(data[: MOST_BYTES - len(report)])

    try:
        async with Machine(plane, build, template) as machine:
            await machine.unpack(build.place.artifacts, _FIRST)
            await machine.unpack(build.place.second, _SECOND)
            result = await machine.execute(_COMMAND, _SECONDS, take)
    except BuildFailed as failed:
        return f"no report: {failed.message}\n"
    except PandastackError as error:
        return f"no report: {error.public or error.message}\n"
    text = report.decode("utf-8", "replace")
    if result.exit_code == _ABSENT:
        return f"no report: template {template.name} has no diffoscope\n"
    if result.timed_out:
        return f"{text}\nthe report is not complete: diffoscope took longer than {_SECONDS:g} s\n"
    return text if result.exit_code in (0, 1) else f"{text}\ndiffoscope ended with exit code {result.exit_code}\n"

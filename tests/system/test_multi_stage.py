"""A Dockerfile with several stages, built by machines."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from pandastack import Client
from pandastack.errors import BadRequestError

DOCKERFILE = """\
ARG BASE=base
FROM $BASE AS build
RUN <<EOF
set -e
mkdir -p /out/sub && echo made > /out/sub/file && ln -s /etc/hostname /out/outside
echo stage > /etc/of-the-stage && ln -s /etc/of-the-stage /absolute
mkdir /deep && ln -s ../../../../etc /deep/climbing
install -o 7 -g 8 -m 640 /etc/of-the-stage /out/owned
EOF

FROM build AS between
ENV FROM_BETWEEN=yes

FROM $BASE AS result
RUN echo mine > /etc/of-the-result
ADD --chown=nobody:root archive /unpacked
COPY --from=build /out /app
COPY --from=BUILD /absolute /deep/climbing/of-the-sta* /read/
COPY --from=between --chown=nobody:root --chmod=600 /out/sub/ /theirs/
ENV RESULT=yes

FROM $BASE AS unneeded
RUN false
"""


def test_stages_copy_from_one_another(client: Client, tmp_path: Path) -> None:
    """Links of a stage end within its root, and a stage that the target does not need is not built."""
    folder = tmp_path / "stages-test"
    folder.mkdir()
    (folder / "Dockerfile").write_text(DOCKERFILE)
    with tarfile.open(folder / "archive", "w:gz") as tar:
        member = tarfile.TarInfo("inside/file")
        member.size, member.mode, member.uid = 9, 0o4751, 1234
        tar.addfile(member, io.BytesIO(b"unpacked\n"))
    (folder / "template.toml").write_text("memory_mb = 256\n")
    with pytest.raises(BadRequestError, match="no stage 'nowhere'") as refused:
        client.templates.start_build(folder, target="nowhere")
    assert refused.value.field == "target"
    client.templates.build(folder, target="result")
    with client.sandboxes.create("stages-test") as sandbox:
        script = (
            "cat /app/sub/file /read/absolute /read/of-the-stage /theirs/file; readlink /app/outside;"
            "stat -c '%u %g %a' /app/owned; stat -c '%U %G %a' /theirs/file; echo $RESULT$FROM_BETWEEN;"
            "cat /etc/of-the-result /unpacked/inside/file; stat -c '%U %G %a' /unpacked/inside/file;"
            "ls -d /out /deep /etc/of-the-stage /run/pandastack/stage 2>/dev/null || true"
        )
        assert sandbox.exec(script, check=True).stdout.splitlines() == [
            *("made", "stage", "stage", "made", "/etc/hostname"),
            *("7 8 640", "nobody root 600", "yes", "mine"),
            *("unpacked", "nobody root 4751"),
        ]


def test_a_build_without_the_cache_is_what_later_builds_continue_from(client: Client, tmp_path: Path) -> None:
    folder = tmp_path / "anew-test"
    folder.mkdir()
    (folder / "Dockerfile").write_text("FROM base\nRUN cat /proc/sys/kernel/random/uuid > /drawn\n")
    (folder / "template.toml").write_text("memory_mb = 256\n")
    first, anew, again = [client.templates.build(folder, no_cache=wish).version for wish in (False, True, False)]
    assert first != anew == again

"""Templates that the server builds from a Dockerfile."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import seen


def dockerfile(client) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "sub").mkdir()
        (Path(folder) / "sub" / "file").write_text("content\n")
        build = client.templates.build_from_dockerfile(
            "built-by-python", "FROM base\nCOPY sub/file /file\n", context_dir=folder, memory_mb=256, size_mb=512
        )
    lines = list(client.templates.build_logs(build.id))
    ended = client.templates.wait_for_build(build.id, poll_interval=0.5)
    with client.sandboxes.create("built-by-python") as sandbox:
        content = seen.result(sandbox.exec("cat /file"))
    return {
        "status": [build.status, ended.status, client.templates.get_build(build.id).status],
        "listed": build.id in [each.id for each in client.templates.builds()],
        "lines": lines,
        "content": content,
        "taken": seen.error(lambda: client.templates.build_from_dockerfile("built-by-python", "FROM base")),
        "deleted": client.templates.delete("built-by-python"),
        "gone": seen.error(lambda: client.templates.get("built-by-python")),
        "again": seen.error(lambda: client.templates.delete("built-by-python")),
    }


def image(client) -> dict[str, object]:
    build = client.templates.register("registered-by-python", os.environ["IMAGE"], memory_mb=256, size_mb=512)
    ended = client.templates.wait_for_build(build.id, poll_interval=0.5)
    with client.sandboxes.create("registered-by-python") as sandbox:
        content = seen.result(sandbox.exec("cat /etc/group"))
    missing = client.templates.register("registered-no-image", os.environ["IMAGE"] + "x", size_mb=512)
    return {
        "status": [build.status, ended.status],
        "lines": list(client.templates.build_logs(build.id)),
        "content": content,
        "missing": seen.error(lambda: client.templates.wait_for_build(missing.id, poll_interval=0.5)),
        "malformed": seen.error(lambda: client.templates.register("registered-no-image", "no image")),
    }


def other_sources(client) -> dict[str, object]:
    with tempfile.NamedTemporaryFile(suffix=".tar") as archive:
        return {
            "root": seen.error(lambda: client.templates.build("from-root", rootfs_tar=archive.name)),
            "push": seen.error(lambda: client.templates.push("pushed", "/no/Dockerfile")),
        }

"""Files."""

from __future__ import annotations

from pathlib import Path

import seen


def everything(client) -> dict[str, object]:
    with client.sandboxes.create("base") as sandbox:
        files = sandbox.filesystem
        data = bytes(range(256)) * 64
        written = files.write("/workspace/ü b/deep/data.bin", data)
        local, copy = Path("local.bin"), Path("copy.bin")
        local.write_bytes(data)
        uploaded = files.upload(local, "/root/up.bin")
        files.download("/root/up.bin", copy)
        sandbox.exec("cd /workspace && mkdir tree && echo 1 > tree/a && ln -s /workspace tree/loop && : > empty")
        stat = files.stat("/workspace/ü b/deep/data.bin")
        return {
            "written": written,
            "uploaded": uploaded,
            "same": files.read("/workspace/ü b/deep/data.bin") == data and copy.read_bytes() == data,
            "text": files.read("/etc/hostname").decode(),
            "empty": [files.write("/root/none", b"")["bytes"], len(files.read("/root/none"))],
            "stat": seen.entry(stat) | {"mtime": stat.mtime, "mode": stat.mode},
            "stat_directory": seen.entry(files.stat("/workspace")),
            "list": sorted((each.name, each.is_dir) for each in files.listdir("/workspace")),
            "root": "etc" in [each.name for each in files.listdir()],
            "walk": sorted(each.path for _, dirs, found in files.walk("/workspace") for each in [*dirs, *found]),
            "exists": [files.exists("/etc/hosts"), files.exists("/no/such")],
            "missing": {
                "read": seen.error(lambda: files.read("/no/such")),
                "stat": seen.error(lambda: files.stat("/no/such")),
                "list": seen.error(lambda: files.listdir("/no/such")),
            },
            "directory": seen.error(lambda: files.read("/etc")),
            "relative": seen.error(lambda: files.write("no/slash", b"x")),
        }

"""A template that nobody built, and the manifest of its snapshot."""

from __future__ import annotations

from pandastack.model.template import Template
from pandastack.snapshots.manifest import FORMAT, Here, Manifest

MANIFEST = Manifest(
    key="0123456789abcdef",
    format=FORMAT,
    accelerator="tcg",
    vmm="qemu 7.2.22 (Debian)",
    cpu_flags="max:0011",
    cpus=2,
    memory_mb=512,
    disk_mb=1024,
    max_cpus=4,
    max_memory_mb=2048,
    min_memory_mb=256,
    image="fedc",
    kernel_release="6.1.0-56-cloud-amd64",
    kernel_version="6.1.192-2",
    kernel_sha256="00",
    modules="m1",
    mtu=1400,
    volumes=2,
    at_frame_boundary=True,
    boot_id_at=0,
    built_at="2026-01-01T00:00:00+00:00",
)

HERE = Here(MANIFEST.vmm, MANIFEST.cpu_flags, {MANIFEST.protocol})
"""A host that the snapshot was made on."""

TEMPLATE = Template(
    name="base",
    description="",
    cpu=1,
    memory_mb=256,
    disk_mb=512,
    tools=(),
    aliases=("ubuntu-24.04",),
    category="",
    base="debian:bookworm",
    env={"LANG": "C"},
    version="v1",
    image="i1",
    size_bytes=1,
    built_at="2026-01-01T00:00:00+00:00",
)

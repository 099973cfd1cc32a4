"""A manifest of a snapshot that nobody made."""

from __future__ import annotations

from pandastack.snapshots.manifest import FORMAT, Manifest

MANIFEST = Manifest(
    key="0123456789abcdef",
    format=FORMAT,
    accelerator="tcg",
    vmm="qemu 7.2.22 (Debian)",
    cpu_flags="max:0011",
    cpus=2,
    memory_mb=512,
    disk_mb=1024,
    image="fedc",
    kernel_release="6.1.0-56-cloud-amd64",
    kernel_version="6.1.192-2",
    kernel_sha256="00",
    at_frame_boundary=True,
    built_at="2026-01-01T00:00:00+00:00",
)

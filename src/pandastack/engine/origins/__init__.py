"""Origins, which machines begin from, and where they are stored. The functions work on an origin's directory."""

from pandastack.engine.origins.origin import (
    attach,
    copy_disks,
    copy_state,
    describe,
    fits,
    keep_disks,
    link,
    link_base,
    load,
    read_spec,
    resize,
    sources,
    write_spec,
)

__all__ = [
    "attach",
    "copy_disks",
    "copy_state",
    "describe",
    "fits",
    "keep_disks",
    "link",
    "link_base",
    "load",
    "read_spec",
    "resize",
    "sources",
    "write_spec",
]

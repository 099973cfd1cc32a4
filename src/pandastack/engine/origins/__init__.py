"""Origins, which machines are restored from, and where they are stored. The functions work on an origin's directory."""

from pandastack.engine.origins.origin import (
    copy_state,
    describe,
    fits,
    link,
    link_base,
    load,
    read_spec,
    write_spec,
)

__all__ = ["copy_state", "describe", "fits", "link", "link_base", "load", "read_spec", "write_spec"]

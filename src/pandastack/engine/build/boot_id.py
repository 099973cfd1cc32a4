"""Where a guest's kernel keeps its boot id.

Linux makes the id at its first reading and offers no way to change it, so a copy of a guest would have that of its
original. The host therefore writes a new one into the guest's memory, to the place that the guest names when it is
baked. A guest that lies loses 16 bytes of its own memory.
"""

from __future__ import annotations

import re

from pandastack.errors import PandastackError
from pandastack.guest import Channel

SIZE = 16

_TEXT_LIMIT = 64 * 1024 * 1024
_SYMBOLS = re.compile(rb"^([0-9a-f]{16}) \w (_text|sysctl_bootid)$", re.MULTILINE)
_CODE = re.compile(rb"^ *([0-9a-f]+)-[0-9a-f]+ : Kernel code$", re.MULTILINE)


async def find_boot_id(channel: Channel) -> int:
    """The place of the id's 16 bytes in the guest's memory; 0 if the guest does not tell.

    The kernel is mapped as it lies in the memory (Documentation/arch/x86/x86_64/mm.rst): its symbols are as far from
    its beginning as the places that they stand for.
    """
    try:
        symbols = {name: int(address, 16) for address, name in _SYMBOLS.findall(await _text(channel, "/proc/kallsyms"))}
        begin = _CODE.search(await _text(channel, "/proc/iomem"))
    except PandastackError:
        channel.check()
        return 0
    if begin is None or len(symbols) < 2:
        return 0
    return int(begin[1], 16) + symbols[b"sysctl_bootid"] - symbols[b"_text"]


async def _text(channel: Channel, path: str) -> bytes:
    text = bytearray()
    async for chunk in channel.read_file(path):
        text += chunk
        if len(text) > _TEXT_LIMIT:
            break
    return bytes(text)

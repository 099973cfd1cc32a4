"""A template's snapshot as one file: a tar, compressed by zstd, that another host can unpack and check.

The first member, ``index.json``, says what the others must be; the second is its SHA-256 in hex. Then come the files of
the snapshot in the order of the index. Of each only those ranges are there that are not holes, one after the other, and
the index has where they belong: a memory image of gigabytes is mostly holes. Nothing of an archive is believed: its
reader accepts exactly these members, writes no more bytes than the index says, and those to names of its own choice.
"""

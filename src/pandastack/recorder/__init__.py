"""The recording proxy: fetches for a build what its programs ask for and names it in a lock, or answers from a lock.

It is a process with a user of its own, because it reads what guests and strangers send (docs/design/0049). The control
plane imports ``client``, ``blobs`` and ``lock``; the other modules run in the process.
"""

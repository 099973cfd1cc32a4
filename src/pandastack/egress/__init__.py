"""The egress process: the resolver and the proxy of one engine, and the engine's side of it.

Guests ask it for names and, where names or secrets decide, connect through it. Its listeners are in the slots' network
namespaces; it dials from the host's. It runs as its own user, with no capabilities. The engine uses :mod:`.client`.
"""

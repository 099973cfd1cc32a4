"""``pandastack ssh``, ``ssh-config`` and ``ssh-key``."""

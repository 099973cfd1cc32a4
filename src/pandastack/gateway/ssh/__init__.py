"""The SSH door: shells, commands, files and forwarded ports of sandboxes (docs/design/0039-ssh.md)."""

from pandastack.gateway.ssh.door import SshDoor, open_ssh_door, open_ssh_doors
from pandastack.gateway.ssh.host_key import kept_host_key

__all__ = ["SshDoor", "kept_host_key", "open_ssh_door", "open_ssh_doors"]

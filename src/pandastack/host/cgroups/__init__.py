"""Control groups: how much memory, CPU time and how many threads a machine's process may take (cgroups(7)).

Version 2 and version 1 are two lists of files for the same limits (:mod:`.limits`); :mod:`.hierarchy` finds which one
this host has, and :mod:`.groups` makes the groups and puts processes into them.
"""

from pandastack.host.cgroups.groups import Groups, open_groups, place
from pandastack.host.cgroups.hierarchy import limiting_groups
from pandastack.host.cgroups.limits import Limits

__all__ = ["Groups", "Limits", "limiting_groups", "open_groups", "place"]

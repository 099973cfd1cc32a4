"""The files of a captured machine, and whether this host can run it."""

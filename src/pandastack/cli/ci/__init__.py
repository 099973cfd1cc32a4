"""``pandastack ci``: runner pools and their jobs."""

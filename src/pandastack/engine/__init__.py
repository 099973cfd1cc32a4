"""One host's machines, disks and snapshots. Knows nothing of tenants, tokens or products."""

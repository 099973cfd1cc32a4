"""What a captured machine consists of on disk, and whether this host can run it."""

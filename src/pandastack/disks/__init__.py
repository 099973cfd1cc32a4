"""Where machines' disks and snapshots live, and how they are cloned."""

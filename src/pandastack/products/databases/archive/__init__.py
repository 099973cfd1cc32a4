"""Archives of databases: their log as it is written, base backups, and restores to any time between."""

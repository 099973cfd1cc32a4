"""Commands, processes and terminals."""

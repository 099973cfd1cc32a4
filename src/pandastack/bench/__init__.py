"""Measures the platform against the floor of its own host: the bare VMM, restored by hand."""

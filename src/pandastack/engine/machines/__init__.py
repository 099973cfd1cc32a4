"""Machines: how one is planned, run, captured and given to a sandbox."""

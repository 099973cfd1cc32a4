# Generated from ../_async/__init__.py by scripts/generate_sync.py: change that file, not this one.
"""The client library in the flavour of this package; the blocking one is generated from the other."""

"""Sandboxes as the engine knows them."""

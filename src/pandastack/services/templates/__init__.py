"""Templates as callers see them."""

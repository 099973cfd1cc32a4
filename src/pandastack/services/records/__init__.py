"""Records of sandboxes, and the state in memory that goes with them."""

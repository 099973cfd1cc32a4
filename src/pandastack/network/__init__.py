"""A machine's place in the network."""

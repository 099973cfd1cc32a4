"""What the engine does at its start with what a killed one left."""

"""How a starting engine deals with what a killed one left behind."""

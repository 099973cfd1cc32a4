"""The process through which people and programs outside reach what listens inside sandboxes."""

"""SSH: whose keys open which sandboxes, and where clients connect."""

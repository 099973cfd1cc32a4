"""Programs that run inside sandboxes; the control plane only sends their text. They use the standard library alone."""

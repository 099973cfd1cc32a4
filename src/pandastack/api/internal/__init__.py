"""What the gateway asks the control plane, over a Unix socket of this user."""

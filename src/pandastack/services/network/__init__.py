"""Network policies of sandboxes, their egress logs and counters."""

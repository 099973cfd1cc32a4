"""Code sessions: interpreters that keep their state."""

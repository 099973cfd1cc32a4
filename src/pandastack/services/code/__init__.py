"""Code sessions: interpreters that retain their state between cells."""

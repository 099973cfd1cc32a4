"""What is remembered of each sandbox."""

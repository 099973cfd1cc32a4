"""Commands about what a workspace owns."""

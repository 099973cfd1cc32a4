"""Commands about the server and its host."""

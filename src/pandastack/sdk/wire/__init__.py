"""Encoding of API calls and decoding of answers; shared by the client and the tools for agents."""

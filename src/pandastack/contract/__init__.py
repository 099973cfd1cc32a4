"""What passes between control plane and engine: frozen messages, and one codec for all of them.

Both sides import this package and nothing of each other. It uses the standard library only.
"""

"""The messages between control plane and engine: frozen dataclasses, and one codec for all of them.

Both sides import this package, and nothing from each other. It uses only the standard library.
"""

"""Comparing the files of two states."""

"""Declared packages of templates: checked, locked, fetched, and unpacked without running any of their code."""

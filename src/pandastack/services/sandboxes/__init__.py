"""The life cycle of a sandbox as its owner sees it."""

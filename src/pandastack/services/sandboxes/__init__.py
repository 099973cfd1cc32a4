"""The life of a sandbox as its owner sees it."""

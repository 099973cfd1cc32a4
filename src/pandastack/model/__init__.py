"""Plain data that several layers share: frozen, without behaviour beyond its own consistency."""

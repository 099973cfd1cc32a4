"""Plain data that several layers speak of: frozen, without behaviour beyond its own consistency."""

"""Files, archives, searches and watches."""

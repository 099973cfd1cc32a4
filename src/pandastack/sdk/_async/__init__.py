"""The client library in the flavour of this package; the blocking one is generated from the other."""

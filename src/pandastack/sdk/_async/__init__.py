"""The client library in the flavour of this package; the waiting one is the source of the blocking one."""

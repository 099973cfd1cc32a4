"""Opens the TLS of hosts that secrets are bound to, in a process and with a user of its own, and puts values in."""

from pandastack.broker.bindings import Binding, Use
from pandastack.broker.client import BrokerClient, open_broker

__all__ = ["Binding", "BrokerClient", "Use", "open_broker"]

"""The engines as the control plane sees them."""

from pandastack.cluster.engine_client import EngineClient
from pandastack.cluster.engines import Engines
from pandastack.cluster.in_process import StreamingASGITransport

__all__ = ["EngineClient", "Engines", "StreamingASGITransport"]

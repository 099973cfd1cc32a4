"""``python -m pandastack.broker``: started by the engine only."""

from pandastack.broker.process import main

main()

"""``python -m pandastack.cli``."""

from pandastack.cli import main

main()

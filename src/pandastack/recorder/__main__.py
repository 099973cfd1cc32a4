"""``python -m pandastack.recorder``: the process of one recording proxy."""

from pandastack.recorder.process import main

if __name__ == "__main__":
    main()

"""Virtual machine monitors: how one machine is started, loaded, paused, captured and ended."""

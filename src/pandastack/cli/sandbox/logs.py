"""This program's logging: to standard error, one record a line, without the values of local variables."""

from __future__ import annotations

import logging
import os
import sys


def configure(default: str) -> None:
    """Log at the level ``PANDASTACK_LOG_LEVEL`` (``debug``, ``info``, ``warning``, ``error``), else ``default``."""
    import structlog

    level = logging.getLevelNamesMapping().get(os.environ.get("PANDASTACK_LOG_LEVEL", default).upper(), logging.INFO)
    terminal = sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            # Plain tracebacks: the values of local variables can be secrets.
            structlog.processors.format_exc_info,
            structlog.dev.ConsoleRenderer(colors=terminal) if terminal else structlog.processors.LogfmtRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)

"""Functions: code that is imported once, captured, and restored for each call into a machine of its own."""

from pandastack.products.functions.functions import Functions, Metrics, open_functions
from pandastack.products.functions.lambda_url import HttpAnswer, HttpRequest
from pandastack.products.functions.records import Function
from pandastack.products.functions.spec import (
    MOST_BUNDLE,
    MOST_EVENT,
    GivenRun,
    NewFunction,
    ScheduledCall,
    checked_new,
    checked_run,
)

__all__ = [
    "MOST_BUNDLE",
    "MOST_EVENT",
    "Function",
    "Functions",
    "GivenRun",
    "HttpAnswer",
    "HttpRequest",
    "Metrics",
    "NewFunction",
    "ScheduledCall",
    "checked_new",
    "checked_run",
    "open_functions",
]

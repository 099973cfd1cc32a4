"""Functions: code that is imported once, captured, and restored for each call into a machine of its own."""

from pandastack.products.functions.functions import Functions, Metrics, open_functions
from pandastack.products.functions.http import Cut, StreamedAnswer
from pandastack.products.functions.lambda_url import HttpAnswer, HttpRequest, has_body
from pandastack.products.functions.records import Function
from pandastack.products.functions.spec import (
    MOST_BUNDLE,
    MOST_EVENT,
    Background,
    Chosen,
    GivenRun,
    NewFunction,
    ScheduledCall,
    checked_background,
    checked_new,
    checked_run,
)

__all__ = [
    "MOST_BUNDLE",
    "MOST_EVENT",
    "Background",
    "Chosen",
    "Cut",
    "Function",
    "Functions",
    "GivenRun",
    "HttpAnswer",
    "HttpRequest",
    "Metrics",
    "NewFunction",
    "ScheduledCall",
    "StreamedAnswer",
    "checked_background",
    "checked_new",
    "checked_run",
    "has_body",
    "open_functions",
]

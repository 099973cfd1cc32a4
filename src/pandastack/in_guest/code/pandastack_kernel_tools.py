"""What runs inside a Python kernel beside the user's code: the list of variables, and the data of charts."""
# mypy: ignore-errors

import json
import reprlib
import sys
import warnings

CHART = "application/vnd.pandastack.chart+json"
VARIABLES_MAX = 1000
REPR_MAX = 200
SERIES_MAX = 50
POINTS_MAX = 1000

_short = reprlib.Repr()
_short.maxstring = _short.maxother = REPR_MAX
_short.maxlong = 60


def prepare(shell):
    """Called once in a new kernel, before its first cell."""
    shell.ask_exit = sys.exit  # `exit` and `quit` end the cell, as sys.exit() does, and not the session
    warnings.filterwarnings("ignore", message="To exit: use")
    try:
        shell.enable_matplotlib("inline")
        from matplotlib.figure import Figure
    except ImportError:
        return
    shell.display_formatter.mimebundle_formatter.for_type(Figure, chart_bundle)
    _seed()


def rehearse(shell):
    """Do once, in a new kernel, what its first cells would wait for."""
    shell.display_formatter.format([1, "a"])
    try:
        raise ValueError
    except ValueError as error:
        shell.InteractiveTB.structured_traceback(type(error), error, error.__traceback__)


def _seed():
    """A fork has the state of its parent's generators; Python itself sees to `random`."""
    import numpy.random

    numpy.random.seed()


def variables(shell):
    """What the user has named, as JSON: name, type, shape (or null) and a short repr."""
    import types

    hidden = set(shell.user_ns_hidden) | {"In", "Out"}
    found = []
    for name, value in list(shell.user_ns.items()):
        if name.startswith("_") or name in hidden or isinstance(value, types.ModuleType):
            continue
        found.append({"name": name, "type": type(value).__name__, "shape": _shape(value), "repr": _repr(value)})
        if len(found) == VARIABLES_MAX:
            break
    return json.dumps(found)


def _shape(value):
    try:
        shape = getattr(value, "shape", None)
        if isinstance(shape, tuple) and all(hasattr(each, "__index__") for each in shape):
            return [each.__index__() for each in shape]
        if isinstance(value, (str, bytes, list, tuple, dict, set, frozenset)):
            return [len(value)]
    except Exception:  # the value's own code
        pass
    return None


def _repr(value):
    try:
        columns = getattr(value, "columns", None)
        if columns is not None and hasattr(value, "iloc"):
            return f"columns: {', '.join(map(str, columns[:20]))}"[:REPR_MAX]
        return _short.repr(value)[:REPR_MAX]
    except Exception as error:
        return f"<{type(error).__name__} in its repr>"


def chart_bundle(figure, include=None, exclude=None):
    """The data of a figure, beside the picture that others make of it."""
    try:
        axes = [_axes(each) for each in figure.axes]
    except Exception:  # figures are drawn whatever they are made of; their data is a bonus
        return {}
    return {CHART: {"axes": axes}} if axes else {}


def _axes(axes):
    kind, series = _series(axes)
    return {
        "type": kind,
        "title": axes.get_title(),
        "x_label": axes.get_xlabel(),
        "y_label": axes.get_ylabel(),
        "x_scale": axes.get_xscale(),
        "y_scale": axes.get_yscale(),
        "series": series[:SERIES_MAX],
    }


def _series(axes):
    """What is drawn there, the first kind that there is."""
    from matplotlib.collections import PathCollection
    from matplotlib.container import BarContainer
    from matplotlib.patches import Wedge

    wedges = [each for each in axes.patches if isinstance(each, Wedge)]
    if wedges:
        return "pie", [{"label": _label(each), "value": abs(each.theta2 - each.theta1) / 360} for each in wedges]
    bars = [each for each in axes.containers if isinstance(each, BarContainer)]
    if bars:
        return "bar", [_bars(axes, each) for each in bars]
    lines = [each for each in axes.get_lines() if len(each.get_xdata())]
    if lines:
        return "line", [_points(each, each.get_xdata(), each.get_ydata()) for each in lines]
    dots = [each for each in axes.collections if isinstance(each, PathCollection)]
    if dots:
        return "scatter", [_points(each, *each.get_offsets().T) for each in dots]
    if axes.images:
        return "image", [{"label": _label(each), "shape": list(each.get_array().shape)} for each in axes.images]
    return "other", []


def _bars(axes, container):
    upright = container.orientation != "horizontal"
    names = {
        round(float(at), 6): text.get_text()
        for at, text in zip(
            axes.get_xticks() if upright else axes.get_yticks(),
            axes.get_xticklabels() if upright else axes.get_yticklabels(),
            strict=False,
        )
    }
    at, values = [], []
    for bar in container.patches[:POINTS_MAX]:
        middle = bar.get_x() + bar.get_width() / 2 if upright else bar.get_y() + bar.get_height() / 2
        at.append(names.get(round(float(middle), 6)) or _plain(middle))
        values.append(_plain(bar.get_height() if upright else bar.get_width()))
    return {"label": _label(container), "x": at, "y": values, "total": len(container.patches)}


def _points(artist, x, y):
    return {
        "label": _label(artist),
        "x": [_plain(each) for each in x[:POINTS_MAX]],
        "y": [_plain(each) for each in y[:POINTS_MAX]],
        "total": len(x),
    }


def _label(artist):
    label = str(artist.get_label() or "")
    return "" if label.startswith("_") else label


def _plain(value):
    if hasattr(value, "item") and type(value).__module__ == "numpy" and not hasattr(value, "astype"):
        value = value.item()
    if type(value).__name__ == "datetime64":
        return str(value)
    try:
        number = float(value)
    except (TypeError, ValueError):
        return str(value)
    return number if number - number == 0 else None  # neither nan nor infinite

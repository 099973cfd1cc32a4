"""The bench of functions: what needs no machine."""

from __future__ import annotations

from typing import Any

import pytest

from pandastack.bench.functions import BURST, Samples, _at_once, _function, _rate, _with_call, call, rows
from pandastack.errors import PandastackError

RIGHT = {"status": "success", "result": 6, "duration_ms": 4}


class Api:
    """Answers every run with the same."""

    def __init__(self, run: dict[str, Any]) -> None:
        self.run, self.deleted = run, list[str]()

    def post(self, path: str, _body: object = None) -> dict[str, Any]:
        return {"id": "f1"} if path == "/functions" else self.run

    def delete(self, name: str, kind: str) -> None:
        self.deleted.append(f"{kind}/{name}")


def test_calls_are_compared_with_the_floor() -> None:
    samples = Samples([100.0], [9000.0], [300.0], [200.0], [4.0], [500.0] * 3, [5.0], [10.0])
    found = {row.name: row.ratio for row in rows(samples)}
    assert found == {
        "floor": None,
        "function_deploy": None,
        "function_call": 3.0,
        "function_call_empty": 2.0,
        "function_itself": None,
        "function_burst": 5.0,
        "function_calls_per_s": 0.5,
    }


def test_only_the_right_result_counts() -> None:
    assert call(Api(RIGHT), "f1") == 4.0  # type: ignore[arg-type]
    for wrong in ({"status": "error", "error": "no", "result": None}, {"status": "success", "result": 7}):
        with pytest.raises(PandastackError, match="the function failed"):
            call(Api(wrong), "f1")  # type: ignore[arg-type]


def test_functions_go_and_calls_are_counted() -> None:
    api: Any = Api(RIGHT)
    took: list[float] = []
    with _function(api, "source", took) as made:
        assert made == "f1" and len(_at_once(api, made)) == BURST
        assert _rate([lambda: call(api, made)] * 2, 3) > 0
    assert api.deleted == ["/functions/f1"] and len(took) == 1


def test_the_base_of_the_rate_has_a_call_after_each_restore() -> None:
    assert _with_call(10.0, 2, [200.0, 300.0, 9000.0]) == pytest.approx(4.0)  # each of two: 0.2 s and 0.3 s


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_rate_with_failures_is_none() -> None:
    def fails() -> float:
        raise PandastackError("no")

    with pytest.raises(PandastackError, match="only 0 of 6"):
        _rate([fails] * 2, 3)

"""What a cell gives: its outputs within bounds, and how it ended."""
# mypy: ignore-errors

import json
import re

STREAM_MAX = 1 << 20
RESULTS_MAX = 8 << 20
ERROR_MAX = 256 << 10
ANSWER_MAX = (16 << 20) - 1000  # what the host reads of one answer, less what surrounds it

_MIME = re.compile(r"[\w.+-]{1,60}/[\w.+-]{1,60}")


class Stream:
    """The first bytes of what a cell prints, and how many there were."""

    def __init__(self):
        self._kept = bytearray()
        self.total = 0

    def add(self, data):
        self.total += len(data)
        self._kept += data[: STREAM_MAX - len(self._kept)]

    def text(self):
        dropped = self.total - len(self._kept)
        if not dropped:
            return self._kept.decode("utf-8", "replace")
        kept = self._kept.decode("utf-8", "ignore")
        return f"{kept}\n[pandastack: output truncated, {dropped} of {self.total} bytes dropped]\n"


class Cell:
    """Collects the outputs of a cell, and those that came after the cell before it had ended.

    Threads, child processes and background jobs print while no cell runs: a kernel always has a cell that takes it.
    """

    def __init__(self):
        self.exit, self.error = 0, None
        self.timed_out = self.restarted = False
        self._clear()

    def _clear(self):
        self._stdout, self._stderr = Stream(), Stream()
        self._results, self._shown = [], {}
        self._room = RESULTS_MAX
        self._clears_next = False

    def clear(self, wait):
        """Drop the outputs so far; with ``wait``, once there is another."""
        if wait:
            self._clears_next = True
        else:
            self._clear()

    def _before_output(self):
        if self._clears_next:
            self._clear()

    def stdout(self, data):
        """Add bytes to the standard output."""
        self._before_output()
        self._stdout.add(data)

    def stderr(self, data):
        """Add bytes to the standard error."""
        self._before_output()
        self._stderr.add(data)

    def result(self, data, shown_as=None, update=False):
        """A MIME bundle. One that is ``shown_as`` something may be replaced later, by an ``update``."""
        self._before_output()
        bundle = self._fitting({str(mime): _text(value) for mime, value in data.items() if _MIME.fullmatch(str(mime))})
        if update:
            if shown_as in self._shown:
                self._results[self._shown[shown_as]] = bundle
            return
        if shown_as is not None:
            self._shown[shown_as] = len(self._results)
        self._results.append(bundle)

    def _fitting(self, bundle):
        size = sum(map(len, bundle.values()))
        if size > self._room:
            return {"text/plain": f"[pandastack: a result of {size} characters was dropped]"}
        self._room -= size
        return bundle

    def answer(self):
        answer = {
            "stdout": self._stdout.text(),
            "stderr": self._stderr.text(),
            "exit": self.exit,
            "error": self.error and self.error[:ERROR_MAX],
            "results": self._results,
            "timed_out": self.timed_out,
            "restarted": self.restarted,
        }
        # JSON may need six bytes for a character; the streams and the error alone always fit.
        if self._room < RESULTS_MAX - ANSWER_MAX // 40 and len(json.dumps(answer)) > ANSWER_MAX:
            answer["results"] = [{"text/plain": "[pandastack: the results were dropped: too long as JSON]"}]
        return answer


def _text(value):
    return value if isinstance(value, str) else json.dumps(value)

"""Words of a Dockerfile line: splitting, quotes, escapes and ``${variables}``, all as pure functions.

The rules are those of the Dockerfile reference ("Environment replacement") and of its word lexer: single
quotes are literal, inside double quotes variables and escapes count, an escaped ``$`` is a dollar sign, an
unknown variable is empty.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from pandastack.errors import BadRequestError

VALUE_MAX = 128 * 1024
"""Characters that a word may have once its variables are replaced: Linux gives a program no longer strings."""

_NESTED_MAX = 16
"""How deep ``${A:-${B:-…}}`` may go."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9]")


def split_words(text: str, escape: str = "\\") -> list[str]:
    """Split at unquoted white space. Quotes and escapes stay in the words, for :func:`expand` to take
    away."""
    words: list[str] = []
    current, quote, index = "", "", 0
    while index < len(text):
        char = text[index]
        if char == escape and quote != "'" and index + 1 < len(text):
            current += text[index : index + 2]
            index += 2
            continue
        if char in "'\"" and quote in ("", char):
            quote = "" if quote else char
        if char.isspace() and not quote:
            if current:
                words.append(current)
            current = ""
        else:
            current += char
        index += 1
    if quote:
        raise BadRequestError(f"unclosed {quote} in: {text}")
    return [*words, current] if current else words


def expand(word: str, variables: Mapping[str, str], escape: str = "\\") -> str:
    """``word`` with its variables replaced and its quotes and escapes taken away."""
    return _Expansion(word, variables, escape).run()


class _Expansion:
    """One pass over one word; ``index`` is the reading position."""

    def __init__(self, word: str, variables: Mapping[str, str], escape: str) -> None:
        self.word, self.variables, self.escape = word, variables, escape
        self.index = 0
        self.depth = 0

    def run(self, until: str = "") -> str:
        """Expand up to the end, or up to the unquoted character ``until``, which is consumed."""
        result, quote = "", ""
        while self.index < len(self.word):
            char = self._take()
            if char == until and not quote:
                return result
            if char in "'\"" and quote in ("", char):
                quote = "" if quote else char
            elif char == self.escape and quote != "'" and self.index < len(self.word):
                result += self._escaped(quote)
            elif char == "$" and quote != "'":
                result += self._variable()
                if len(result) > VALUE_MAX:
                    raise BadRequestError(f"a value has more than {VALUE_MAX} characters")
            else:
                result += char
        if until or quote:
            raise BadRequestError(f"unclosed {'{' if until else quote} in: {self.word}")
        return result

    def _take(self) -> str:
        char = self.word[self.index]
        self.index += 1
        return char

    def _escaped(self, quote: str) -> str:
        """Inside double quotes an escape only counts before ``"``, ``$`` and itself."""
        char = self._take()
        return char if not quote or char in ('"', "$", self.escape) else self.escape + char

    def _variable(self) -> str:
        braced = self.word.startswith("{", self.index)
        match = _NAME.match(self.word, self.index + braced)
        if not match:
            if braced:
                raise BadRequestError(f"bad variable in: {self.word}")
            return "$"
        self.index = match.end()
        return self._braced(match[0]) if braced else self.variables.get(match[0], "")

    def _braced(self, name: str) -> str:
        """After ``${name``: the plain form or one of ``:-  -  :+  +  :?  ?``; the colon treats empty as
        unset."""
        value = self.variables.get(name)
        if self.word.startswith("}", self.index):
            self.index += 1
            return value or ""
        colon = self.word.startswith(":", self.index)
        self.index += colon
        operator = self._take() if self.index < len(self.word) else ""
        if operator not in ("-", "+", "?") or not operator:
            raise BadRequestError(f"unsupported modifier of ${{{name}}} in: {self.word}", hint="use :- :+ or :?")
        self.depth += 1
        if self.depth > _NESTED_MAX:
            raise BadRequestError(f"variables are nested more than {_NESTED_MAX} deep")
        alternative = self.run(until="}")
        self.depth -= 1
        given = bool(value) if colon else value is not None
        if operator == "?" and not given:
            raise BadRequestError(f"{name}: {alternative or 'is not set'}")
        if operator == "+":
            return alternative if given else ""
        return (value or "") if given else alternative

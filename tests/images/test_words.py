import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandastack.errors import BadRequestError
from pandastack.images.words import expand, split_words

VARIABLES = {"A": "one", "EMPTY": "", "B": "two words"}


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("$A", "one"),
        ("${A}b", "oneb"),
        ("$Ab", ""),
        ("$UNKNOWN/x", "/x"),
        ("\\$A", "$A"),
        ("'$A'", "$A"),
        ('"$B!"', "two words!"),
        ('"a\\"b"', 'a"b'),
        ('"a\\nb"', "a\\nb"),
        ("a\\ b", "a b"),
        ("${UNKNOWN:-x}", "x"),
        ("${EMPTY:-x}", "x"),
        ("${EMPTY-x}", ""),
        ("${A:-x}", "one"),
        ("${A:+x}", "x"),
        ("${EMPTY:+x}", ""),
        ("${EMPTY+x}", "x"),
        ("${UNKNOWN:-${A}/$A}", "one/one"),
        ("${UNKNOWN:-'}'}", "}"),
        ("${A:?gone}", "one"),
        ("$", "$"),
        ("a$/b", "a$/b"),
    ],
)
def test_expand(word: str, expected: str) -> None:
    assert expand(word, VARIABLES) == expected


@pytest.mark.parametrize("word", ["${", "${A", "${A:", "${A%x}", "${A:-x", "${}", '"open', "'open", "${UNKNOWN:?gone}"])
def test_bad_words_are_errors(word: str) -> None:
    with pytest.raises(BadRequestError):
        expand(word, VARIABLES)


def test_the_message_of_a_required_variable_is_shown() -> None:
    with pytest.raises(BadRequestError, match="UNKNOWN: set it"):
        expand("${UNKNOWN:?set it}", VARIABLES)


def test_another_escape_character() -> None:
    assert expand("C:\\dir`$A", VARIABLES, "`") == "C:\\dir$A"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a b\tc", ["a", "b", "c"]),
        ("k='a b' c=\"d e\"", ["k='a b'", 'c="d e"']),
        ("a\\ b c", ["a\\ b", "c"]),
        ("  ", []),
        ("'it\"s' x", ["'it\"s'", "x"]),
    ],
)
def test_split_words(text: str, expected: list[str]) -> None:
    assert split_words(text) == expected


@given(st.lists(st.text(st.characters(blacklist_characters="'", blacklist_categories=["Cs"]), min_size=1)))
def test_single_quotes_keep_anything(words: list[str]) -> None:
    split = split_words(" ".join(f"'{word}'" for word in words))
    assert [expand(word, VARIABLES) for word in split] == words

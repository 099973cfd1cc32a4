"""Answers do not show values, however they are cut into pieces, and their length stays."""

from __future__ import annotations

import base64
import json
import random
from urllib.parse import quote

import pytest

from pandastack.broker.frames import ClientFrames
from pandastack.broker.mask import Mask, Scanner
from pandastack.model.secrets import PLACEHOLDER, PLACEHOLDER_LENGTH, new_placeholder

VALUE = "abcabd-s3cret/val ue"


def spelled() -> list[bytes]:
    raw = VALUE.encode()
    return [raw, json.dumps(VALUE)[1:-1].encode(), quote(VALUE, safe="").encode(), base64.b64encode(raw).rstrip(b"=")]


@pytest.mark.parametrize("form", spelled())
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_every_spelling_is_masked_in_any_pieces(form: bytes, size: int) -> None:
    text = b"abca" + form + b"abcab" + form + form[:-1] + b"|"
    mask = Mask([VALUE])
    pieces = [mask.feed(text[at : at + size]) for at in range(0, len(text), size)]
    seen = b"".join(pieces) + mask.end()
    assert form not in seen
    assert seen == b"abca" + b"*" * len(form) + b"abcab" + b"*" * len(form) + form[:-1] + b"|"


def test_text_without_values_passes_at_once() -> None:
    mask = Mask([VALUE])
    assert mask.feed(b"data: hello\n\n") == b"data: hello\n\n"
    assert mask.end() == b""


def test_a_beginning_is_released_and_the_rest_is_masked_still() -> None:
    mask = Mask(["12345678-abcdef"])
    assert mask.feed(b"x1234") == b"x"
    assert mask.holds
    assert mask.release() == b"1234"
    assert mask.feed(b"5678-abc") == b""
    assert not mask.holds
    assert mask.feed(b"defy") + mask.end() == b"***********y"


def test_random_pieces_never_show_a_value() -> None:
    chosen = random.Random(7)
    for _ in range(300):
        value = "".join(chosen.choices("ab", k=chosen.randint(8, 12)))
        mask, seen = Mask([value]), b""
        text = "".join(chosen.choices("ab", k=60)) + value
        at = 0
        while at < len(text):
            step = chosen.randint(1, 9)
            seen += mask.feed(text[at : at + step].encode())
            at += step
        seen += mask.end()
        assert len(seen) == len(text)
        assert value.encode() not in seen


def test_no_values_is_no_mask() -> None:
    assert Mask([]).feed(b"anything") == b"anything"


@pytest.mark.parametrize("cut", range(1, PLACEHOLDER_LENGTH))
def test_a_placeholder_is_found_across_pieces(cut: int) -> None:
    scanner, placeholder = Scanner(PLACEHOLDER, PLACEHOLDER_LENGTH), new_placeholder().encode()
    assert scanner.feed(b"xx" + placeholder[:cut]) is None
    assert scanner.feed(placeholder[cut:]) == placeholder


def frame(payload: bytes, opcode: int = 1, *, final: bool = True) -> bytes:
    key = bytes([1, 2, 3, 250])
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else bytes([0x80 | 126]) + size.to_bytes(2, "big")
    masked = bytes(byte ^ key[at % 4] for at, byte in enumerate(payload))
    return bytes([opcode | (0x80 if final else 0)]) + length + key + masked


@pytest.mark.parametrize("size", [1, 5, 4096])
def test_a_placeholder_is_found_in_messages(size: int) -> None:
    placeholder = new_placeholder().encode()
    stream = frame(b"") + frame(b"x" * 300) + frame(placeholder[:9], final=False) + frame(b"ping", 9)
    stream += frame(placeholder[9:], 0)
    frames = ClientFrames()
    found = [frames.feed(stream[at : at + size]) for at in range(0, len(stream), size)]
    assert [each for each in found if each] == [placeholder]


def test_a_frame_without_mask_is_refused() -> None:
    with pytest.raises(ValueError, match="not masked"):
        ClientFrames().feed(b"\x81\x01a")

"""Text as it may be shown: whole characters, and no beginning of a stop text."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aiqueue.llama.text_stream import TextStream


def shown(pieces: list[bytes], stops: list[str]) -> list[str]:
    stream = TextStream(stops)
    texts = [stream.feed(piece) for piece in pieces]
    return [*texts, stream.finish()]


def test_a_character_is_shown_when_it_is_whole() -> None:
    assert shown([b"\xe2\x82", b"\xac 5"], []) == ["", "€ 5", ""]


def test_half_a_character_at_the_end_is_not_lost_in_silence() -> None:
    assert shown([b"5 \xe2\x82"], []) == ["5 ", "\ufffd"]


def test_what_may_become_a_stop_text_is_held_back_until_it_does_not() -> None:
    assert shown([b"a E", b"N", b"G"], ["END"]) == ["a ", "", "ENG", ""]


def test_a_stop_text_ends_the_text_before_it_and_for_good() -> None:
    stream = TextStream(["END"])
    assert [stream.feed(piece) for piece in (b"a E", b"ND b", b"c")] == ["a ", "", ""]
    assert stream.stopped
    assert stream.finish() == ""
    assert stream.text == "a "


def test_the_first_of_several_stop_texts_counts() -> None:
    assert shown([b"one two three"], ["three", "two"]) == ["one ", ""]


def test_what_was_held_back_is_shown_at_the_end() -> None:
    assert shown([b"a EN"], ["END"]) == ["a ", "EN"]


@given(
    text=st.text(alphabet="abé€😀\n", max_size=40), stop=st.text(alphabet="ab€", min_size=1, max_size=3), cut=st.data()
)
def test_however_the_bytes_are_cut_the_text_is_what_stands_before_the_stop(
    text: str, stop: str, cut: st.DataObject
) -> None:
    data, pieces = text.encode(), list[bytes]()
    while data:
        size = cut.draw(st.integers(1, len(data)))
        pieces.append(data[:size])
        data = data[size:]
    stream = TextStream([stop])
    seen = "".join([*(stream.feed(piece) for piece in pieces), stream.finish()])
    assert seen == stream.text == text.partition(stop)[0]

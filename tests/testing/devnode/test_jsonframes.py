"""JSON out of a stream of bytes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custommsg_testing.devnode.jsonframes import JsonFrames, NotJsonError, encode

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=15,
)
containers = st.lists(values, max_size=4) | st.dictionaries(st.text(), values, max_size=4)
separators = st.sampled_from(["", " ", "\n\n", "\t\r\n"])


@given(st.lists(st.tuples(containers, separators, st.booleans(), st.booleans()), max_size=6), st.data())
def test_values_come_out_whole_however_the_stream_is_split(
    sent: list[tuple[Any, str, bool, bool]], data: st.DataObject
) -> None:
    """With any separator or none, within strings, escapes and characters of many bytes."""
    stream = "".join(
        json.dumps(value, ensure_ascii=ascii_only, indent=1 if indent else None) + separator
        for value, separator, ascii_only, indent in sent
    ).encode(errors="replace")
    frames = JsonFrames()
    out: list[Any] = []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        out += frames.feed(stream[:size])
        stream = stream[size:]
    expected = [json.loads(json.dumps(v, ensure_ascii=a).encode(errors="replace")) for v, _, a, _ in sent]
    assert out == expected


@given(st.binary(max_size=200), st.data())
def test_arbitrary_bytes_are_values_or_no_json(stream: bytes, data: st.DataObject) -> None:
    """Never another error."""
    frames = JsonFrames(limit=100)
    try:
        while stream:
            size = data.draw(st.integers(1, len(stream)))
            list(frames.feed(stream[:size]))
            stream = stream[size:]
    except NotJsonError:
        pass


@pytest.mark.parametrize(
    "garbage", [b"hello", b"GET / HTTP/1.1", b"\x16\x03\x01", b'"text"', b"17", b"}", b"[}"]
)
def test_what_begins_as_no_object_is_refused_at_once(garbage: bytes) -> None:
    """Not only when the end of it is here."""
    with pytest.raises(NotJsonError):
        list(JsonFrames().feed(b" \n" + garbage))


def test_the_values_before_garbage_are_given() -> None:
    """The order of what came in is kept."""
    frames = JsonFrames().feed(b'{"a":1}{"b":2}oops')
    assert [next(frames), next(frames)] == [{"a": 1}, {"b": 2}]
    with pytest.raises(NotJsonError):
        next(frames)


def test_what_never_ends_is_refused_at_the_limit() -> None:
    """Nobody can make the node keep bytes without bound."""
    frames = JsonFrames(limit=1000)
    assert list(frames.feed(b'{"a":"' + b"x" * 900)) == []
    with pytest.raises(NotJsonError, match="xxx"):
        list(frames.feed(b"x" * 100))


def test_deep_nesting_is_no_crash() -> None:
    """The parser's recursion limit is its business."""
    with pytest.raises(NotJsonError):
        list(JsonFrames().feed(b"[" * 200_000 + b"]" * 200_000))


def test_a_long_string_in_many_pieces_is_read_in_reasonable_time() -> None:
    """A message of 65,535 bytes is 131,070 digits, in reads of any size."""
    value = {"msg": "ab" * 65_535}
    stream = json.dumps(value).encode()
    frames = JsonFrames()
    out: list[Any] = []
    for at in range(0, len(stream), 512):
        out += frames.feed(stream[at : at + 512])
    assert out == [value]


def test_a_reply_ends_with_two_line_feeds() -> None:
    """As lightningd's do, with spaces or without."""
    assert encode({"a": [1, 2]}) == b'{"a":[1,2]}\n\n'
    assert encode({"a": [1, 2]}, spaced=True) == b'{"a": [1, 2]}\n\n'

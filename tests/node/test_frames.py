"""Splitting a stream into messages."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custommsg_server.node.lightningd.frames import END, FrameError, Frames

values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3), max_leaves=6
)
cuts = st.lists(st.integers(0, 10_000), max_size=20)


@given(st.lists(values, max_size=10), st.none() | st.integers(1, 3), cuts)
def test_a_stream_may_be_cut_anywhere(messages: list[Any], indent: int | None, cuts: list[int]) -> None:
    """Each message is returned once, complete and in order, as soon as its end was read."""
    texts = [json.dumps(one, indent=indent).encode() for one in messages]
    stream = b"".join(text + END for text in texts)
    places = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    frames = Frames(1 << 20)
    got: list[bytes] = []
    for start, end in pairwise(places):
        if complete := frames.feed(stream[start:end]):
            got += complete.split(END)
        assert got == texts[: stream[:end].count(END)]


def test_a_message_without_an_end_is_refused() -> None:
    """A stream that is not JSON-RPC cannot fill the memory; earlier messages are returned."""
    frames = Frames(10)
    assert frames.feed(b"a" * 30 + END + b"b" * 5) == b"a" * 30
    with pytest.raises(FrameError, match="has more than 10 bytes"):
        frames.feed(b"b" * 6)

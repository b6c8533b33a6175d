"""Whatever happens: one outcome for each message, the order to each peer, and nothing sent twice."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import custommsg
from custommsg import CustomMsgError, Outbound, Sent, _reconnect, _retry, _send_queue
from support import client_gateway
from support.send_streams import End, Fate, Streams

Outcomes = dict[int, Sent | CustomMsgError | None]
"""What became of each message; None: its task was cancelled."""

messages = st.lists(
    st.tuples(
        st.sampled_from([b"\x02" * 33, b"\x03" * 33]), st.sampled_from([Fate.SENT, Fate.SENT, *list(Fate)])
    ),
    max_size=40,
)
ends = st.lists(st.builds(End, st.integers(1, 15), st.sampled_from(["stops", "breaks", "ends"])), max_size=4)
batches = st.integers(1, 8)


@pytest.fixture(autouse=True, scope="module")
def no_waits() -> Iterator[None]:
    """Shorten the waits; how long they are is tested with a clock of its own."""
    with (
        patch.object(_retry, "MIN_WAIT", 0.0005),
        patch.object(_reconnect, "FIRST_WAIT", 0.0005),
        patch.object(_reconnect, "MAX_WAIT", 0.001),
        patch.object(_send_queue, "GRAIN", 0.001),
    ):
        yield


def outbound(number: int, peer: bytes, fate: Fate) -> Outbound:
    """Make a message that says its fate and its number."""
    if fate is Fate.NO_MESSAGE:
        return Outbound(peer[:5], msg=f"{fate:04x}{number:08x}")
    return Outbound(peer, msg=f"{fate:04x}{number:08x}")


def hold(
    streams: Streams, given: Sequence[tuple[bytes, Fate]], ends: Sequence[End], outcomes: Outcomes
) -> None:
    """Check what must hold of what the gateway sent and of what the client said."""
    numbers = defaultdict(list)
    for peer, msg in streams.sent:
        numbers[peer].append(int.from_bytes(msg[2:], "big"))
    for sent in numbers.values():
        assert sent == sorted(sent), "the order to a peer"
    times = Counter(number for sent in numbers.values() for number in sent)
    assert all(count == 1 for count in times.values()), "nothing is sent twice"
    assert len(outcomes) == len(given)
    gently = all(end.kind == "stops" for end in ends)
    for number, (_, fate) in enumerate(given):
        match outcomes[number]:
            case Sent(type=type):
                assert times[number] == 1
                assert type == fate in (Fate.SENT, Fate.REFUSED_AT_FIRST)
            case None:
                pass
            case custommsg.OutcomeUnknown():
                assert fate is Fate.SENT_BUT_UNKNOWN or not gently
            case CustomMsgError():
                assert times[number] == 0
                assert fate is not Fate.SENT or not gently, "a gateway that restarts is not noticed"


@given(
    given=messages, ends=ends, batch=batches, cancel=st.dictionaries(st.integers(0, 39), st.integers(1, 60))
)
@settings(max_examples=150)
async def test_callers_at_once(
    given: list[tuple[bytes, Fate]], ends: list[End], batch: int, cancel: dict[int, int]
) -> None:
    """Many tasks on one sender; some are cancelled when the gateway has read so many messages."""
    tasks: list[asyncio.Task[Any]] = []

    def on_read(read: int) -> None:
        for number, at in cancel.items():
            if read >= at and number < len(tasks):
                tasks[number].cancel()

    streams = Streams(ends, on_read)
    async with client_gateway.run() as gateway, custommsg.aio.connect(gateway.address) as client:
        gateway.send_stream = streams
        with patch.object(_send_queue, "MAX_BATCH", batch):
            async with client.sender() as sender:
                for number, (peer, fate) in enumerate(given):
                    message = outbound(number, peer, fate)
                    tasks.append(asyncio.create_task(sender.send(message.peer, msg=message.msg)))
                done = await asyncio.gather(*tasks, return_exceptions=True)
    hold(
        streams,
        given,
        ends,
        {
            number: None if isinstance(outcome, asyncio.CancelledError) else outcome  # type: ignore[misc]
            for number, outcome in enumerate(done)
        },
    )


@pytest.mark.parametrize("kind", ["aio", "sync"])
@given(given=messages, ends=ends, batch=batches, room=st.integers(1, 50))
async def test_many_at_once(
    kind: str, given: list[tuple[bytes, Fate]], ends: list[End], batch: int, room: int
) -> None:
    """One input, whatever its bound: each index once."""
    streams = Streams(ends)
    input = [outbound(number, peer, fate) for number, (peer, fate) in enumerate(given)]
    async with client_gateway.run() as gateway:
        gateway.send_stream = streams
        with patch.object(_send_queue, "MAX_BATCH", batch), patch("custommsg._bulk.MAX_MESSAGES", room):
            if kind == "aio":
                async with custommsg.aio.connect(gateway.address) as client:
                    results = [result async for result in client.send_many(input)]
            else:
                results = await asyncio.to_thread(blocking, gateway.address, input)
    assert all(result.message is input[result.index] for result in results)
    assert len({result.index for result in results}) == len(results)
    hold(streams, given, ends, {result.index: result.outcome for result in results})


def blocking(address: str, input: list[Outbound]) -> list[custommsg.Result]:
    """Send with the blocking client."""
    with custommsg.sync.connect(address) as client:
        return list(client.send_many(input))

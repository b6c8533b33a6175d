"""The limits of peers, with a clock that the test advances."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custommsg_server.core.limits import FRAMING, MAX_KEYS, PeerLimits, Rate, TokenBuckets
from custommsg_server.domain.errors import Reason, RelayError
from custommsg_server.domain.wire import NodeId, join_message
from custommsg_server.node.port import Outbound
from support.keys import node_id


class Clock:
    """A clock that the test advances."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def outbound(size: int, peer: int = 1) -> Outbound:
    """Make a message of a size to a peer."""
    return Outbound(node_id(peer), join_message(40001, bytes(size - 2)))


def test_a_burst_passes_and_what_is_beyond_says_when_to_come_back() -> None:
    """OVERLOADED has the time after which the same message is allowed."""
    clock = Clock()
    limits = PeerLimits(Rate(messages_per_s=10, burst=1), clock)
    for _ in range(11):
        limits.take(outbound(100))
    with pytest.raises(RelayError) as caught:
        limits.take(outbound(100))
    assert caught.value.reason is Reason.OVERLOADED
    assert caught.value.retry_after == pytest.approx(0.1)
    limits.take(outbound(100, 2))
    clock.now += 0.1001
    limits.take(outbound(100))


def test_bytes_count_with_their_framing() -> None:
    """A peer reads 1,000,000 bytes a second, including 34 bytes of framing for each message."""
    clock = Clock()
    limits = PeerLimits(Rate(bytes_per_s=1000, burst=0), clock)
    limits.take(outbound(1000 - FRAMING))
    clock.now += 0.99
    with pytest.raises(RelayError):
        limits.take(outbound(2))
    clock.now += 0.0101
    limits.take(outbound(2))


def test_a_stream_waits_instead() -> None:
    """A reservation counts at once, so that later messages wait for it."""
    clock = Clock()
    limits = PeerLimits(Rate(messages_per_s=100, burst=0.5), clock)
    assert limits.reserve([outbound(10)] * 51) == 0
    assert limits.reserve([outbound(10)] * 100) == pytest.approx(1.0)
    assert limits.reserve([outbound(10)]) == pytest.approx(1.01)
    assert limits.reserve([outbound(10, peer=2)]) == 0


def test_what_was_given_back_was_never_taken() -> None:
    """A batch that is not sent because of its deadline does not delay others."""
    limits = PeerLimits(Rate(messages_per_s=10, burst=0), Clock())
    limits.reserve([outbound(10)] * 5)
    limits.give_back([outbound(10)] * 5)
    assert limits.reserve([outbound(10)]) == 0


def test_no_limit_is_no_limit() -> None:
    """0 switches a limit off."""
    limits = PeerLimits(Rate(), Clock())
    for _ in range(10_000):
        limits.take(outbound(65_535))
    assert limits.reserve([outbound(65_535)] * 100) == 0


def test_the_memory_of_peers_is_bounded() -> None:
    """Messages to more and more peers do not fill the memory."""
    limits = PeerLimits(Rate(messages_per_s=1, burst=1), Clock())
    for number in range(MAX_KEYS + 10):
        limits.take(Outbound(NodeId(b"\x02" + number.to_bytes(32, "big")), join_message(40001, b"")))
    assert len(limits._buckets._full_at) == MAX_KEYS


def test_a_peer_in_debt_is_not_forgotten_before_one_that_is_idle() -> None:
    """Messages to 10,000 other peers do not reset the limit of a peer."""
    clock = Clock()
    limits = PeerLimits(Rate(messages_per_s=100, burst=1), clock)
    for number in range(MAX_KEYS - 1):
        limits.take(Outbound(NodeId(b"\x02" + number.to_bytes(32, "big")), join_message(40001, b"")))
    limits.reserve([outbound(10)] * 1000)
    for number in range(MAX_KEYS):
        limits.take(Outbound(NodeId(b"\x03" + number.to_bytes(32, "big")), join_message(40001, b"")))
    with pytest.raises(RelayError) as caught:
        limits.take(outbound(10))
    assert caught.value.retry_after == pytest.approx(9.0)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 30), st.floats(0, 3)), max_size=60))
def test_the_one_that_is_forgotten_has_the_least_debt(steps: list[tuple[int, int, float]]) -> None:
    """With any earlier charges; the others are remembered."""
    clock = Clock()
    buckets: TokenBuckets[int] = TokenBuckets(Rate(messages_per_s=10, burst=0), clock, max_keys=3)
    debts: dict[int, float] = {}
    for key, messages, pause in steps:
        clock.now += pause
        buckets.charge(key, messages, 0)
        debts[key] = max(debts.get(key, 0.0), clock.now) + messages / 10
        if len(debts) > 3:
            del debts[min(debts, key=lambda one: debts[one])]
        waits = {one: max(0.0, at - clock.now) for one, at in debts.items()}
        assert {one: buckets.wait(one) for one in debts} == pytest.approx(waits, abs=1e-5)


@given(st.lists(st.tuples(st.floats(0, 2), st.integers(2, 5000), st.booleans()), max_size=200))
def test_no_more_passes_than_the_rate_and_the_burst_allow(steps: list[tuple[float, int, bool]]) -> None:
    """With any mix of calls and streams, the total is within rate x time + burst."""
    clock = Clock()
    rate, burst = 10_000.0, 1.0
    limits = PeerLimits(Rate(bytes_per_s=rate, burst=burst), clock)
    passed, largest = 0, 0
    for pause, size, stream in steps:
        clock.now += pause
        if stream:
            clock.now += limits.reserve([outbound(size)])
        else:
            try:
                limits.take(outbound(size))
            except RelayError as error:
                assert error.retry_after is not None
                assert error.retry_after > 0
                continue
        passed += size + FRAMING
        largest = max(largest, size + FRAMING)
        assert passed <= rate * (clock.now - 1000.0 + burst) + largest + 1e-3


@given(
    st.lists(
        st.tuples(st.floats(0, 2), st.lists(st.tuples(st.integers(1, 4), st.integers(2, 3000)), max_size=12)),
        max_size=20,
    )
)
def test_a_batch_waits_as_long_as_the_messages_before_the_last_of_each_peer_take(
    batches: list[tuple[float, list[tuple[int, int]]]],
) -> None:
    """The same as charging each message separately, also for new and forgotten peers."""
    clock = Clock()
    rate = Rate(messages_per_s=10, bytes_per_s=5000, burst=0.5)
    together: TokenBuckets[int] = TokenBuckets(rate, clock, max_keys=3)
    alone: TokenBuckets[int] = TokenBuckets(rate, clock, max_keys=3)
    for pause, batch in batches:
        clock.now += pause
        expected = 0.0
        for peer, size in batch:
            expected = max(expected, alone.wait(peer))
            alone.charge(peer, 1, size + FRAMING)
        assert together.reserve((peer, bytes(size)) for peer, size in batch) == expected
        assert together._full_at == alone._full_at

"""Events are encoded once for all subscribers, as the contract defines."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from custommsg.v1 import custommsg_pb2 as pb
from custommsg_server.api import convert
from custommsg_server.api.encoding import Encoder, batch_encoder
from custommsg_server.domain.events import Arrival, Kind
from custommsg_server.inbox.port import Batch, Event, Position

arrivals = st.builds(
    Arrival,
    kind=st.sampled_from(Kind),
    time_ns=st.integers(0, 2**62),
    peer_id=st.binary(max_size=33),
    message=st.binary(min_size=2, max_size=300),
    lost=st.integers(0, 2**40),
    node_id=st.binary(max_size=33),
)
positions = st.from_regex(r"[0-9a-f]{16}-[0-9]{1,18}", fullmatch=True).map(Position)
batches = st.builds(Batch, st.lists(st.builds(Event, positions, arrivals), max_size=5), positions)


@given(st.lists(batches, max_size=5))
def test_joined_bytes_are_the_message_of_the_contract(given_: list[Batch]) -> None:
    """For any events, from the cache or not."""
    encode = batch_encoder()
    for batch in (*given_, *given_):
        read = pb.SubscribeCustomMsgsResponse.FromString(encode(batch))
        assert read.position == batch.position
        assert len(read.events) == len(batch.events)
    seen: dict[tuple[str, bytes], pb.Event] = {}
    for batch in given_:
        events = pb.SubscribeCustomMsgsResponse.FromString(encode(batch)).events
        for event, read_event in zip(batch.events, events, strict=True):
            [expected] = convert.events_to_proto([event])
            key = event.position, event.arrival.peer_id  # one place holds one event
            assert read_event == seen.setdefault(key, expected)


def test_an_event_is_encoded_once_and_the_oldest_is_dropped() -> None:
    """For any number of subscribers; the cache is limited in bytes."""
    encoded: list[str] = []

    def encode(event: Event) -> bytes:
        encoded.append(event.position)
        return bytes(1000)

    encoder = Encoder(encode, max_size=3000)
    one, two, three = (
        Event(Position(f"i-{number}"), Arrival(Kind.MESSAGE, 1, b"p", b"\x9c\x41")) for number in range(3)
    )
    for event in (one, one, two, two, one, three, one, three):
        assert encoder.of(event) == bytes(1000)
    assert encoded == ["i-0", "i-1", "i-2", "i-0"]


def test_a_batch_is_encoded_once_for_all_who_share_it() -> None:
    """Joining costs as much as many writes."""
    encode = batch_encoder()
    batch = Batch([Event(Position("i-1"), Arrival(Kind.MESSAGE, 1, b"p", b"\x9c\x41"))], Position("i-1"))
    assert encode(batch) is encode(batch)
    assert batch_encoder()(batch) == encode(batch)


def test_an_interruption_without_its_peer_is_another_one() -> None:
    """A subscriber without permission never gets the bytes with the peer."""
    encode = batch_encoder()
    arrival = Arrival(Kind.INTERRUPTION, 1, b"\x02" * 33, lost=3)
    named = Batch([Event(Position("i-1"), arrival)], Position("i-1"))
    nameless = Batch([Event(Position("i-1"), arrival._replace(peer_id=b""))], Position("i-1"))
    for batch in (named, nameless, named):
        [event] = pb.SubscribeCustomMsgsResponse.FromString(encode(batch)).events
        assert event.peer_id == batch.events[0].arrival.peer_id

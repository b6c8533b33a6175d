"""The check of a run finds each broken promise, and nothing else."""

from __future__ import annotations

from math import inf

import pytest

from hostile.record import (
    ATTACHED,
    FULL_DISK,
    KILL_GATEWAY,
    KILL_NODE,
    REFUSED,
    UNEXPLAINED,
    Expired,
    Interrupted,
    Outage,
    Record,
    Send,
    explain,
    judge,
    latencies,
    percentile,
)

HONEST, OTHER = b"\2" * 33, b"\3" * 33


@pytest.fixture
def record() -> Record:
    """Return a run without errors: five messages in each direction, and the gateway's start."""
    record = Record(HONEST, attaches=[0.0], phases=[("alone", 0.0, 10.0), ("attack", 10.0, 20.0)])
    record.stream.append(Interrupted(b"", 0, 0.5))
    for number in range(1, 6):
        record.sent[number] = number
        record.answered.append(number)
        record.deliver(number, f"p{number}", number + 0.25)
        record.end_send(number, Send(number, number + 0.5, "OK"))
        record.heard.append(number)
    return record


def broken(record: Record) -> dict[str, int]:
    """Return the broken promises, by the first words of their names."""
    return {one.name: one.broken for one in judge(record) if one.broken}


def test_a_good_run_has_nothing_broken(record: Record) -> None:
    """Messages that were not acknowledged may be delivered again at the same position."""
    record.deliver(5, "p5", 6.0)
    assert not broken(record)
    assert record.redelivered == 1
    assert explain(record) == {ATTACHED: 1}


def test_what_was_answered_and_not_delivered_is_lost(record: Record) -> None:
    """The note says whether an interruption has counted it."""
    record.answered += [6, 8]
    record.full.append((6.0, 7.0))
    record.stream.append(Interrupted(b"", 1, 7.0))
    record.deliver(7, "p7", 7.5)
    [lost] = [one for one in judge(record) if one.broken]
    assert (lost.name, lost.broken) == ("received: lost after the answer to the node", 2)
    assert "1 of them counted" in lost.note


def test_a_gap_without_an_interruption_is_found(record: Record) -> None:
    """The interruption has to concern this peer or all peers."""
    record.stream.append(Interrupted(OTHER, 3, 6.0))
    record.deliver(8, "p8", 8.0)
    assert broken(record) == {"received: missing without an interruption": 2}
    assert explain(record)[REFUSED] == 1
    record.stream.append(Expired(9.0))
    record.deliver(20, "p20", 20.0)
    assert broken(record) == {"received: missing without an interruption": 2}


def test_duplicates_and_disorder_are_found(record: Record) -> None:
    """A message at another position is another delivery."""
    record.deliver(4, "q4", 7.0)
    assert broken(record) == {"received: twice": 1, "received: out of order": 1}


def test_each_attachment_explains_one_interruption(record: Record) -> None:
    """A second interruption needs its own cause: another attachment, or a full disk."""
    record.stream.append(Interrupted(b"", 0, 6.0))
    record.attaches.append(7.0)
    assert explain(record)[UNEXPLAINED] == 1
    assert broken(record) == {"interruptions without a cause": 1}
    record.attaches.append(5.5)
    assert not broken(record)
    record.stream.append(Interrupted(HONEST, 2, 9.0))
    assert broken(record) == {"interruptions without a cause": 1}
    record.full.append((8.0, 8.5))
    assert explain(record) == {ATTACHED: 2, FULL_DISK: 1}


def test_what_the_peer_got_twice_or_although_it_was_refused_is_found(record: Record) -> None:
    """With an unknown outcome, the message may have been sent."""
    record.end_send(6, Send(6.0, 6.1, "OUTCOME_UNKNOWN"))
    record.end_send(7, Send(7.0, 7.1, "NODE_UNAVAILABLE"))
    record.heard += [3, 6]
    assert broken(record) == {"sent: twice": 1}
    record.heard.append(7)
    assert broken(record) == {"sent: twice": 1, "sent: although the call failed": 1}


def test_what_was_sent_may_be_lost_with_the_node_only(record: Record) -> None:
    """The node had queued the message when it was killed."""
    record.heard.remove(4)
    name = "sent: lost without a kill of the node"
    assert broken(record) == {name: 1}
    record.outages.append(Outage(KILL_GATEWAY, 4.6, 4.6))
    assert broken(record) == {name: 1}
    record.outages.append(Outage(KILL_NODE, 4.6, 4.6))
    assert not broken(record)


def test_latencies_are_sorted_by_phase_and_outage(record: Record) -> None:
    """An outage lasts until a newer message is delivered; only kills affect sending."""
    record.outages += [Outage(KILL_GATEWAY, 11.0, 11.0), Outage(FULL_DISK, 15.0, inf)]
    for number, (sent, received) in enumerate([(10.5, 12.0), (11.5, 13.0), (13.5, 14.0), (15.5, 16.0)], 6):
        record.sent[number] = sent
        record.deliver(number, f"p{number}", received)
        record.end_send(number, Send(sent, received, "OK"))
        record.called[number] = received - 0.125
    by_what = latencies(record)
    receiving, sending = by_what["receive, peer to consumer"], by_what["send"]
    assert [receiving[when] for when in ("alone", "beside", "attack")] == [[0.25] * 5, [], [0.5]]
    assert receiving["outage"] == [1.5, 1.5, 0.5]
    assert [sending[when] for when in ("alone", "outage", "attack")] == [[0.5] * 5, [1.5, 1.5], [0.5, 0.5]]
    assert by_what["receive, hook to consumer"]["attack"] == [0.125]


def test_percentiles() -> None:
    """Of one value it is that value; without values it is 0."""
    assert percentile([], 0.5) == 0.0
    assert percentile([7.0], 0.99) == 7.0
    assert percentile([float(number) for number in range(100, 0, -1)], 0.99) == 100.0

"""The sub-commands about the inbox: `listen`, `events`, `inbox`, `consumers`."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from custommsg import Message
from custommsg._cursor import read_event
from custommsg.v1 import custommsg_pb2 as pb
from custommsg_cli import lines
from support.client_gateway import NODE, PEER, ScriptedGateway, refuse_because, reply
from support.command import Run, start
from support.feed import (
    BIRTH,
    Code,
    Feed,
    connected,
    disconnected,
    interruption,
    message,
    number_of,
    position,
    stopping,
    vanish,
)

PEER_HEX, NODE_HEX = PEER.hex(), NODE.hex()
EVENTS = [
    connected(1),
    message(2, payload=b'{"id": 1,\n "ok": true}'),
    interruption(3, lost=2),
    message(4, type=7, payload=b"\x1b[31m"),
    disconnected(5),
    message(6, payload="grüezi".encode()),
]


def event_of(raw: pb.Event) -> Any:
    event = read_event(raw)
    assert event is not None
    return event


async def test_messages_are_lines_of_columns(cli: Run, gateway: ScriptedGateway) -> None:
    """Text as text, everything else in hex, and no control characters."""
    gateway.stream = Feed(EVENTS)
    done = await cli("listen", "--count", "3")
    assert done.status == 0
    head, *rows = done.out.splitlines()
    assert head.split() == ["TIME", "POSITION", "PEER", "TYPE", "SIZE", "PAYLOAD"]
    assert [row.split(maxsplit=6)[2:] for row in rows] == [
        [position(2), "0279be66…1798", "37913", "22", '{"id": 1, "ok": true}'],
        [position(4), "0279be66…1798", "7", "5", "0x1b5b33316d"],
        [position(6), "0279be66…1798", "37913", "7", "grüezi"],
    ]
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  ", rows[0])


async def test_messages_that_may_be_missing_are_a_note(cli: Run, gateway: ScriptedGateway) -> None:
    """It is on stderr, so that stdout has only messages."""
    gateway.stream = Feed(EVENTS)
    done = await cli("listen", "--count", "3")
    assert done.err.startswith(f"note: Messages from before event {position(3)} may be missing")
    assert len(done.err.splitlines()) == 1


FIRST_ATTACH = [interruption(1), message(2)]
LISTENERS = [
    (["--from-beginning"], False),
    (["--consumer", "c", "--from-beginning"], False),
    (["--after", position(0)], True),
    (["--consumer", "c"], True),
]


@pytest.mark.parametrize(("options", "noted"), LISTENERS)
async def test_the_first_attach_of_a_gateway_is_no_news_to_a_new_listener(
    cli: Run, gateway: ScriptedGateway, options: list[str], noted: bool
) -> None:
    """A listener that has seen nothing yet misses nothing; one that resumes may."""
    gateway.stream = feed = Feed(FIRST_ATTACH)
    gateway.ack = feed.ack
    done = await cli("listen", "--count", "1", *options)
    assert done.out.splitlines()[1].split()[2] == position(2)
    assert ("may be missing" in done.err) == noted


async def test_events_are_shown_when_asked_for(cli: Run, gateway: ScriptedGateway) -> None:
    """Connects, disconnects, and places where messages may be missing, in their order."""
    gateway.stream = Feed(EVENTS)
    done = await cli("listen", "--events", "--count", "5")
    rows = done.out.splitlines()[1:]
    assert rows[0].endswith("connected")
    assert rows[2].endswith("messages before this may be missing (2 lost)")
    assert rows[4].endswith("disconnected")
    assert done.err == ""


async def test_an_interruption_names_the_peer_if_it_concerns_only_one(
    cli: Run, gateway: ScriptedGateway
) -> None:
    """The column of the peer is empty if it concerns all."""
    gateway.stream = Feed([interruption(1), interruption(2, peer_id=PEER)])
    done = await cli("listen", "--events", "--count", "2")
    everybody, one = done.out.splitlines()[1:]
    assert "0279be66…1798" not in everybody
    assert "0279be66…1798" in one


async def test_json_is_one_object_a_line(cli: Run, gateway: ScriptedGateway) -> None:
    """Bytes in hex, times with their zone, a kind to tell them apart."""
    gateway.stream = Feed(EVENTS)
    done = await cli("listen", "--json", "--events", "--count", "4")
    assert [json.loads(line) for line in done.out.splitlines()[:3]] == [
        {
            "kind": "peer_connected",
            "position": position(1),
            "time": "2023-11-14T22:13:21+00:00",
            "node_id": NODE_HEX,
            "peer_id": PEER_HEX,
        },
        {
            "kind": "message",
            "position": position(2),
            "time": "2023-11-14T22:13:22+00:00",
            "node_id": NODE_HEX,
            "peer_id": PEER_HEX,
            "type": 37913,
            "payload": b'{"id": 1,\n "ok": true}'.hex(),
        },
        {
            "kind": "interruption",
            "position": position(3),
            "time": "2023-11-14T22:13:23+00:00",
            "node_id": NODE_HEX,
            "peer_id": "",
            "lost": 2,
        },
    ]
    gateway.stream = Feed(EVENTS)
    note = json.loads((await cli("listen", "--json", "--count", "2")).err)
    assert note["notice"].startswith(f"Messages from before event {position(3)}")


OPTIONS: list[tuple[list[str], pb.SubscribeCustomMsgsRequest]] = [
    ([], pb.SubscribeCustomMsgsRequest()),
    (
        ["--type", "37913", "--type", "0x10-32"],
        pb.SubscribeCustomMsgsRequest(
            filter=pb.EventFilter(types=[37913], type_ranges=[pb.TypeRange(first=16, last=32)])
        ),
    ),
    (["--peer", PEER_HEX], pb.SubscribeCustomMsgsRequest(filter=pb.EventFilter(peer_ids=[PEER]))),
    (["--after", position(0)], pb.SubscribeCustomMsgsRequest(after=position(0))),
    (["--from-beginning"], pb.SubscribeCustomMsgsRequest(from_beginning=True)),
    (["--events"], pb.SubscribeCustomMsgsRequest(filter=pb.EventFilter(include_peer_events=True))),
]


@pytest.mark.parametrize(("options", "request_"), OPTIONS)
async def test_options_reach_the_gateway(
    cli: Run, gateway: ScriptedGateway, options: list[str], request_: pb.SubscribeCustomMsgsRequest
) -> None:
    """Filters and start, as the contract has them."""
    gateway.stream = feed = Feed([message(1)])
    assert (await cli("listen", "--count", "1", *options)).status == 0
    assert feed.requests == [request_]


async def test_a_consumer_acknowledges_what_was_printed(cli: Run, gateway: ScriptedGateway) -> None:
    """The next listener of the name resumes there. An interruption that is not printed holds nothing up."""
    gateway.stream = feed = Feed([message(1), interruption(2), message(3), message(4)])
    gateway.ack = feed.ack
    for expected in (1, 3):
        done = await cli("listen", "--consumer", "c", "--count", "1")
        assert done.out.splitlines()[1].split()[2] == position(expected)
    assert feed.consumers == {"c": 3}
    assert feed.acks == [1, 2, 3]


async def test_a_printed_position_can_be_given_to_after(cli: Run, gateway: ScriptedGateway) -> None:
    """So a listener without a name resumes, too."""
    gateway.stream = Feed([message(1), message(2)])
    printed = (await cli("listen", "--from-beginning", "--count", "1")).out.splitlines()[1].split()[2]
    done = await cli("listen", "--after", printed, "--count", "1")
    assert done.out.splitlines()[1].split()[2] == position(2)


async def test_a_reconnect_is_a_note(cli: Run, gateway: ScriptedGateway) -> None:
    """One readable line says why nothing comes, however many attempts there are, and one that it goes on."""
    gateway.stream = Feed([message(1), message(2)], [1, vanish], [stopping], [stopping])
    done = await cli("listen", "--count", "2")
    assert done.status == 0
    lost, back = done.err.splitlines()
    assert re.fullmatch(
        r"note: The connection to the gateway was lost\. Connecting again in 0\.\d+ s\.", lost
    )
    assert back == "note: Connected again."


async def test_a_position_that_expired_ends_it(cli: Run, gateway: ScriptedGateway) -> None:
    """With the status of its code, like every failure."""
    gateway.stream = Feed([], [refuse_because(Code.OUT_OF_RANGE, "POSITION_EXPIRED", "Gone.")])
    done = await cli("listen", "--after", position(1))
    assert (done.status, done.out, done.err) == (75, "", "error: POSITION_EXPIRED: Gone.\n")


WRONG_USE = [
    (["listen", "--type", "5-3"], 2, "'5-3' ends before it begins"),
    (["listen", "--type", "65536"], 2, "'65536' is not a message type"),
    (["listen", "--type", "-5"], 2, "'-5' is not a type range"),
    (["listen", "--after", position(1), "--from-beginning"], 2, "Give either --after or --from-beginning."),
    (["listen", "--count", "0"], 2, "--count"),
    (["listen", "--consumer", ""], 67, "INVALID_CONSUMER: The consumer's name is empty"),
    (["listen", "--after", ""], 67, "INVALID_POSITION: The position is empty"),
    (["listen", "--peer", "02"], 67, "INVALID_NODE_ID"),
    (["events", "--limit", "0"], 2, "--limit"),
    (["events", "--after", ""], 67, "INVALID_POSITION: The position is empty"),
    (["events", "--type", "5-3"], 2, "'5-3' ends before it begins"),
    (["consumers", "delete", ""], 67, "INVALID_CONSUMER: The consumer's name is empty"),
]


@pytest.mark.parametrize(("arguments", "status", "problem"), WRONG_USE)
async def test_wrong_use_is_refused_without_asking_the_gateway(
    cli: Run, gateway: ScriptedGateway, arguments: list[str], status: int, problem: str
) -> None:
    """What is wrong is on stderr."""
    done = await cli(*arguments)
    assert (done.status, done.out, gateway.requests) == (status, "", [])
    assert done.err.startswith("error: ")
    assert problem in done.err


async def test_events_lists_the_inbox_and_ends(cli: Run, gateway: ScriptedGateway) -> None:
    """Every kind of event, as `listen --events` prints it; with --json one object a line."""
    page = reply(pb.ListEventsResponse(events=EVENTS))
    gateway.script.extend([page, page])
    done = await cli("events")
    assert (done.status, done.err) == (0, "")
    head, *rows = done.out.splitlines()
    assert head.split() == ["TIME", "POSITION", "PEER", "TYPE", "SIZE", "PAYLOAD"]
    assert [number_of(row.split()[2]) for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[2].endswith("messages before this may be missing (2 lost)")
    objects = [json.loads(line) for line in (await cli("events", "--json")).out.splitlines()]
    assert [number_of(one["position"]) for one in objects] == [1, 2, 3, 4, 5, 6]
    assert objects[1]["payload"] == b'{"id": 1,\n "ok": true}'.hex()


LISTED = [
    ([], pb.ListEventsRequest(filter=pb.EventFilter(include_peer_events=True), page_size=101)),
    (["--messages"], pb.ListEventsRequest(page_size=101)),
    (
        ["--type", "0x10-32", "--peer", PEER_HEX, "--messages"],
        pb.ListEventsRequest(
            filter=pb.EventFilter(peer_ids=[PEER], type_ranges=[pb.TypeRange(first=16, last=32)]),
            page_size=101,
        ),
    ),
    (
        ["--after", position(1), "--messages", "--limit", "5000"],
        pb.ListEventsRequest(after=position(1), page_size=1000),
    ),
]


@pytest.mark.parametrize(("options", "request_"), LISTED)
async def test_options_of_events_reach_the_gateway(
    cli: Run, gateway: ScriptedGateway, options: list[str], request_: pb.ListEventsRequest
) -> None:
    """Filters and start, as the contract has them. An empty inbox says so."""
    gateway.script.append(reply(pb.ListEventsResponse()))
    done = await cli("events", *options)
    assert (done.status, done.out) == (0, "The inbox has no such events.\n")
    assert gateway.requests == [request_]


@pytest.mark.parametrize(("limit", "more"), [("2", True), ("3", False)])
async def test_events_says_how_to_go_on(cli: Run, gateway: ScriptedGateway, limit: str, more: bool) -> None:
    """Only if there are more events; on stderr."""
    pages = [
        reply(pb.ListEventsResponse(events=EVENTS[:2], next_page_token="a")),
        reply(pb.ListEventsResponse(events=EVENTS[2:3])),
    ]
    gateway.script.extend(pages)
    done = await cli("events", "--limit", limit)
    assert len(done.out.splitlines()) == 1 + int(limit)
    expected = f"note: There are more events. To go on: --after {position(2)}\n"
    assert done.err == (expected if more else "")


async def test_the_real_process_prints_at_once_and_ctrl_c_ends_it(gateway: ScriptedGateway) -> None:
    """Each line comes before the next message does; no traceback at the end."""
    gateway.stream = feed = Feed([message(1, payload=b"hi")])
    process = await start("listen", "--json", CUSTOMMSG_ADDRESS=gateway.address)
    assert process.stdout is not None
    assert json.loads(await process.stdout.readline())["payload"] == "6869"
    process.send_signal(signal.SIGINT)
    assert await process.communicate() == (b"", b"")
    assert process.returncode == 130
    await asyncio.wait_for(feed.gone.wait(), 10)


CONSUMER = pb.Consumer(name="billing", position=position(7), lag=5, expired=True)
CONSUMER.updated.FromSeconds(BIRTH)
INBOX = pb.GetInboxResponse(
    earliest=position(9), latest=position(12), count=4, size=4096, attached=True, error="disk\x07 full"
)
INBOX.oldest.FromSeconds(BIRTH)


async def test_inbox_shows_what_is_kept_and_the_consumers(cli: Run, gateway: ScriptedGateway) -> None:
    """How much, from where to where, and what is wrong."""
    gateway.script.extend([reply(INBOX), reply(pb.ListConsumersResponse(consumers=[CONSUMER]))])
    done = await cli("inbox")
    assert done.status == 0
    shown = dict(re.split(r" {2,}", line, maxsplit=1) for line in done.out.split("\n\n")[0].splitlines())
    assert shown["attached to node"] == "yes"
    assert shown["events"] == "about 4, 4,096 bytes"
    assert (shown["earliest position"], shown["latest position"]) == (position(9), position(12))
    assert shown["error"] == "disk\N{REPLACEMENT CHARACTER} full"
    last = done.out.splitlines()[-1].split()
    assert (last[0], last[1], last[-1]) == ("billing", position(7), "expired")


async def test_inbox_of_a_gateway_that_is_not_attached(cli: Run, gateway: ScriptedGateway) -> None:
    """It says that messages are lost now, and how to make a consumer."""
    empty = pb.GetInboxResponse(latest=position(3), earliest=position(3))
    gateway.script.extend([reply(empty), reply(pb.ListConsumersResponse())])
    done = await cli("inbox")
    assert "no: what peers send now is lost" in done.out
    assert "about 0, 0 bytes" in done.out
    assert "custommsg listen --consumer NAME" in done.out


async def test_inbox_and_consumers_in_json(cli: Run, gateway: ScriptedGateway) -> None:
    """Times with their zone, nothing left out."""
    consumers = reply(pb.ListConsumersResponse(consumers=[CONSUMER]))
    gateway.script.extend([reply(INBOX), consumers, consumers, consumers])
    inbox = json.loads((await cli("inbox", "--json")).out)
    listed = json.loads((await cli("consumers", "--json")).out)
    assert json.loads((await cli("consumers", "list", "--json")).out) == listed
    time = "2023-11-14T22:13:20+00:00"
    assert listed == [
        {"name": "billing", "position": position(7), "lag": 5, "updated": time, "expired": True}
    ]
    assert inbox.pop("consumers") == listed
    assert inbox == {
        "earliest": position(9),
        "latest": position(12),
        "count": 4,
        "size": 4096,
        "oldest": time,
        "attached": True,
        "error": "disk\x07 full",
    }


async def test_a_consumer_can_be_deleted(cli: Run, gateway: ScriptedGateway) -> None:
    """Deleting one that does not exist is an error."""
    unknown = refuse_because(Code.NOT_FOUND, "CONSUMER_UNKNOWN", "No such consumer.")
    gateway.script.extend([reply(pb.DeleteConsumerResponse()), unknown])
    done = await cli("consumers", "delete", "billing")
    assert (done.status, done.out) == (0, "Deleted: billing\n")
    assert gateway.requests == [pb.DeleteConsumerRequest(consumer="billing")]
    done = await cli("consumers", "delete", "billing")
    assert (done.status, done.err) == (69, "error: CONSUMER_UNKNOWN: No such consumer.\n")


@given(payload=st.binary(max_size=400) | st.text().map(str.encode), width=st.integers(70, 200))
def test_a_line_fits_the_terminal_and_has_no_control_characters(payload: bytes, width: int) -> None:
    """Whatever a peer sends, wide characters too."""
    columns = lines.Columns()
    columns._width = width
    event = event_of(message(1, payload=payload))
    assert isinstance(event, Message)
    line = columns.line(event)
    assert line.isprintable()
    assert cell_len(line) <= width


@given(st.text(min_size=1), st.integers(1, 50))
def test_a_text_that_is_cut_is_still_shown_as_text(text: str, width: int) -> None:
    """A cut through a character does not make it hex; a byte that is not UTF-8 does."""
    if " ".join(text.split()).isprintable() and text.strip():
        assert not lines.preview(text.encode() * 2, width).startswith("0x") or text.startswith("0x")
    assert lines.preview(b"a" * width + b"\xff", width).startswith("0x")

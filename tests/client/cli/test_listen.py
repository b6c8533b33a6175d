"""The commands that receive: `listen`, `inbox`, `consumers`."""

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
from support.client_gateway import PEER, ScriptedGateway, refuse_because, reply
from support.command import Run, start
from support.feed import BIRTH, INBOX_ID, Code, Feed, connected, disconnected, interruption, message, stopping

PEER_HEX = PEER.hex()
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
    """Text as text, everything else in hex; what a peer wrote commands no terminal."""
    gateway.stream = Feed(EVENTS)
    done = await cli("listen", "--count", "3")
    assert done.status == 0
    head, *rows = done.out.splitlines()
    assert head.split() == ["TIME", "SEQUENCE", "PEER", "TYPE", "SIZE", "PAYLOAD"]
    assert [row.split(maxsplit=6)[2:] for row in rows] == [
        ["2", "0279be66…1798", "37913", "22", '{"id": 1, "ok": true}'],
        ["4", "0279be66…1798", "7", "5", "0x1b5b33316d"],
        ["6", "0279be66…1798", "37913", "7", "grüezi"],
    ]
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  ", rows[0])


async def test_messages_that_may_be_missing_are_a_note(cli: Run, gateway: ScriptedGateway) -> None:
    """It stands on stderr, so that what is piped on stays clean."""
    gateway.stream = Feed(EVENTS)
    done = await cli("listen", "--count", "3")
    assert done.err.startswith("note: Messages from before event 3 may be missing")


async def test_events_are_shown_when_asked_for(cli: Run, gateway: ScriptedGateway) -> None:
    """Peers that come and go, and where messages may be missing, at their places."""
    gateway.stream = Feed(EVENTS)
    done = await cli("listen", "--events", "--count", "5")
    rows = done.out.splitlines()[1:]
    assert rows[0].endswith("connected")
    assert rows[2].endswith("messages before this may be missing (2 lost)")
    assert rows[4].endswith("disconnected")
    assert done.err == ""


async def test_json_is_one_object_a_line(cli: Run, gateway: ScriptedGateway) -> None:
    """Bytes in hex, times with their zone, a kind to tell them apart."""
    gateway.stream = Feed(EVENTS)
    done = await cli("listen", "--json", "--events", "--count", "4")
    assert [json.loads(line) for line in done.out.splitlines()[:3]] == [
        {"kind": "peer_connected", "sequence": 1, "time": "2023-11-14T22:13:21+00:00", "node_id": PEER_HEX},
        {
            "kind": "message",
            "sequence": 2,
            "time": "2023-11-14T22:13:22+00:00",
            "node_id": PEER_HEX,
            "type": 37913,
            "payload": b'{"id": 1,\n "ok": true}'.hex(),
        },
        {"kind": "interruption", "sequence": 3, "time": "2023-11-14T22:13:23+00:00", "lost": 2},
    ]
    gateway.stream = Feed(EVENTS)
    note = json.loads((await cli("listen", "--json", "--count", "2")).err)
    assert note["notice"].startswith("Messages from before event 3")


OPTIONS: list[tuple[list[str], pb.SubscribeCustomMsgsRequest]] = [
    ([], pb.SubscribeCustomMsgsRequest()),
    (
        ["--type", "37913", "--type", "0x10-32"],
        pb.SubscribeCustomMsgsRequest(types=[37913], type_ranges=[pb.TypeRange(first=16, last=32)]),
    ),
    (["--peer", PEER_HEX], pb.SubscribeCustomMsgsRequest(node_ids=[PEER])),
    (["--after", "0"], pb.SubscribeCustomMsgsRequest(after=0)),
    (["--from-beginning"], pb.SubscribeCustomMsgsRequest(from_beginning=True)),
    (["--events"], pb.SubscribeCustomMsgsRequest(include_peer_events=True)),
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
    """The next time it goes on there."""
    gateway.stream = feed = Feed([message(1), message(2), message(3)])
    gateway.ack = feed.ack
    for expected in ("1", "2"):
        done = await cli("listen", "--consumer", "c", "--count", "1")
        assert done.out.splitlines()[1].split()[2] == expected
    assert feed.acked == {"c": 2}


async def test_a_reconnect_is_a_note(cli: Run, gateway: ScriptedGateway) -> None:
    """Who watches sees why nothing comes, and that it goes on."""
    gateway.stream = Feed([message(1), message(2)], [1, stopping])
    done = await cli("listen", "--count", "2")
    assert done.status == 0
    lost, back = done.err.splitlines()
    assert lost.startswith("note: Cut off after event 1 (GATEWAY_STOPPING: No.); trying again in ")
    assert back == "note: Connected again; going on after event 1."


async def test_a_position_that_expired_ends_it(cli: Run, gateway: ScriptedGateway) -> None:
    """With the status of its code, as every failure."""
    gateway.stream = Feed([], [refuse_because(Code.OUT_OF_RANGE, "POSITION_EXPIRED", "Gone.")])
    done = await cli("listen", "--after", "1")
    assert (done.status, done.out, done.err) == (75, "", "error: POSITION_EXPIRED: Gone.\n")


WRONG_USE = [
    ["listen", "--type", "5-3"],
    ["listen", "--type", "65536"],
    ["listen", "--type", "-5"],
    ["listen", "--after", "-1"],
    ["listen", "--after", str(2**64)],
    ["listen", "--after", "1", "--from-beginning"],
    ["listen", "--count", "0"],
    ["consumers", "delete"],
    ["consumers", "forget", "c"],
]


@pytest.mark.parametrize("arguments", WRONG_USE)
async def test_wrong_use_ends_with_2(cli: Run, gateway: ScriptedGateway, arguments: list[str]) -> None:
    """What is wrong stands on stderr, and the gateway is not asked."""
    done = await cli(*arguments)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith("error: ")


async def test_the_real_process_prints_at_once_and_ctrl_c_ends_it(gateway: ScriptedGateway) -> None:
    """Each line is there before the next message is; no trace at the end."""
    gateway.stream = feed = Feed([message(1, payload=b"hi")])
    process = await start("listen", "--json", CUSTOMMSG_ADDRESS=gateway.address)
    assert process.stdout is not None
    assert json.loads(await process.stdout.readline())["payload"] == "6869"
    process.send_signal(signal.SIGINT)
    assert await process.communicate() == (b"", b"")
    assert process.returncode == 130
    await asyncio.wait_for(feed.gone.wait(), 10)


CONSUMER = pb.Consumer(name="billing", position=7, lag=5, expired=True)
CONSUMER.updated.FromSeconds(BIRTH)
INBOX = pb.GetInboxResponse(
    inbox_id=INBOX_ID, earliest=9, latest=12, count=4, size=4096, attached=True, error="disk\x07 full"
)
INBOX.oldest.FromSeconds(BIRTH)


async def test_inbox_shows_the_range_and_the_consumers(cli: Run, gateway: ScriptedGateway) -> None:
    """What is held, by whom it is read, and what is wrong."""
    gateway.script.extend([reply(INBOX), reply(pb.ListConsumersResponse(consumers=[CONSUMER]))])
    done = await cli("inbox")
    assert done.status == 0
    for shown in (INBOX_ID, "9 to 12", "4, 4,096 bytes", "disk\N{REPLACEMENT CHARACTER} full", "billing"):
        assert shown in done.out
    assert "expired" in done.out.splitlines()[-1]


async def test_inbox_of_a_gateway_that_is_not_attached(cli: Run, gateway: ScriptedGateway) -> None:
    """That messages are lost now is said in so many words."""
    gateway.script.extend(
        [reply(pb.GetInboxResponse(latest=3, earliest=4)), reply(pb.ListConsumersResponse())]
    )
    done = await cli("inbox")
    assert "no: what peers send now is lost" in done.out
    assert "none; the last was 3" in done.out
    assert "custommsg listen --consumer NAME" in done.out


async def test_inbox_and_consumers_in_json(cli: Run, gateway: ScriptedGateway) -> None:
    """Times with their zone, nothing left out."""
    consumers = reply(pb.ListConsumersResponse(consumers=[CONSUMER]))
    gateway.script.extend([reply(INBOX), consumers, consumers])
    inbox = json.loads((await cli("inbox", "--json")).out)
    listed = json.loads((await cli("consumers", "--json")).out)
    time = "2023-11-14T22:13:20+00:00"
    assert listed == [{"name": "billing", "position": 7, "lag": 5, "updated": time, "expired": True}]
    assert inbox.pop("consumers") == listed
    assert inbox == {
        "inbox_id": INBOX_ID,
        "earliest": 9,
        "latest": 12,
        "count": 4,
        "size": 4096,
        "oldest": time,
        "attached": True,
        "error": "disk\x07 full",
    }


async def test_a_consumer_can_be_deleted(cli: Run, gateway: ScriptedGateway) -> None:
    """One that is not there is an error of its own."""
    unknown = refuse_because(Code.NOT_FOUND, "CONSUMER_UNKNOWN", "No such consumer.")
    gateway.script.extend([reply(pb.DeleteConsumerResponse()), unknown])
    done = await cli("consumers", "delete", "billing")
    assert (done.status, done.out) == (0, "Deleted: billing\n")
    assert gateway.requests == [pb.DeleteConsumerRequest(consumer="billing")]
    done = await cli("consumers", "delete", "billing")
    assert (done.status, done.err) == (69, "error: CONSUMER_UNKNOWN: No such consumer.\n")


@given(payload=st.binary(max_size=400) | st.text().map(str.encode), width=st.integers(70, 200))
def test_a_line_fits_the_terminal_and_commands_it_nothing(payload: bytes, width: int) -> None:
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
    """A cut through a character does not make it hex; a byte that is no text does."""
    if " ".join(text.split()).isprintable() and text.strip():
        assert not lines.preview(text.encode() * 2, width).startswith("0x") or text.startswith("0x")
    assert lines.preview(b"a" * width + b"\xff", width).startswith("0x")

"""`custommsg send --batch`: what a line may be, what is reported about a line that fails, the exit status."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custommsg import Outbound
from custommsg_cli import batch
from support.client_gateway import PEER, ScriptedGateway
from support.command import Run
from support.send_streams import Streams

PEER_HEX = PEER.hex()

LINES = [
    ({"type": 37913, "payload": "00fF"}, Outbound(PEER_HEX, msg="941900fF")),
    ({"type": "0x9419", "text": "hé"}, Outbound(PEER_HEX, 37913, b"h\xc3\xa9")),
    ({"type": 7}, Outbound(PEER_HEX, msg="0007")),
    ({"msg": "9419"}, Outbound(PEER_HEX, msg="9419")),
]
BAD_LINES = [
    "nonsense",
    "[1]",
    "[" * 100_000,
    '{"type": 7}',
    *(
        json.dumps({"peer": PEER_HEX} | fields)
        for fields in (
            {},
            {"type": 7, "msg": "9419"},
            {"type": 7, "text": "a", "payload": "00"},
            {"type": -1},
            {"type": 65_536},
            {"type": True},
            {"type": 7, "text": 1},
            {"type": 7, "payload": None, "text": None},
            {"msg": "9419", "more": 1},
        )
    ),
]


@pytest.mark.parametrize(("fields", "message"), LINES)
def test_each_way_to_give_a_message(fields: dict[str, object], message: Outbound) -> None:
    """The type as `--type` takes it; the payload as hex or as text; or all of it in hex."""
    assert batch.parse(json.dumps({"peer": PEER_HEX} | fields).encode()) == message


@given(
    st.binary() | st.builds(lambda value: json.dumps(value).encode(), st.dictionaries(st.text(), st.text()))
)
def test_a_line_is_a_message_or_a_bad_line(line: bytes) -> None:
    """No other error is raised."""
    with suppress(ValueError):
        assert isinstance(batch.parse(line), Outbound)


@pytest.mark.parametrize("source", ["file", "stdin"])
async def test_a_bad_line_stops_no_other(
    cli: Run, gateway: ScriptedGateway, tmp_path: Path, source: str
) -> None:
    """It is reported with its number, and counts as a failure."""
    gateway.send_stream = streams = Streams()
    good = [json.dumps({"peer": PEER_HEX, "type": 0, "text": str(number)}) for number in range(3)]
    text = "\n".join([good[0], *BAD_LINES, "", good[1], "x" * (3 * batch.MAX_LINE), good[2]]).encode()
    (tmp_path / "batch").write_bytes(text)
    done = await cli(
        "send", "--even", "--batch", *([str(tmp_path / "batch")] if source == "file" else ["-"]), stdin=text
    )
    assert [msg for _, msg in streams.sent] == [b"\0\0000", b"\0\0001", b"\0\0002"]
    bad = [*range(2, 2 + len(BAD_LINES)), len(BAD_LINES) + 4]
    assert [line.split(":")[0] for line in done.err.splitlines()] == [f"line {number}" for number in bad]
    assert done.out.splitlines()[0] == f"Sent: 3 of {3 + len(bad)}."
    assert done.out.splitlines()[-1].split() == ["BAD_LINE", "INVALID_ARGUMENT", str(len(bad))]
    assert done.status == 64 + 3


async def test_all_sent(cli: Run, gateway: ScriptedGateway) -> None:
    """Then one line says so, and the status is 0."""
    gateway.send_stream = Streams()
    line = json.dumps({"peer": PEER_HEX, "msg": "0000"}).encode()
    done = await cli("send", "--even", "--batch", "-", stdin=b"\n".join([line] * 1000))
    assert (done.status, done.out, done.err) == (0, "Sent: 1,000 of 1,000.\n", "")


@pytest.mark.parametrize(("msgs", "status"), [(["0000", "0001", "0001"], 64 + 9), (["0001", "0003"], 64)])
async def test_the_status_is_the_code_that_all_failures_share(
    cli: Run, gateway: ScriptedGateway, msgs: list[str], status: int
) -> None:
    """64 + that code, as for one message; 64 if there are several."""
    gateway.send_stream = Streams()
    lines = "".join(json.dumps({"peer": PEER_HEX, "msg": msg}) + "\n" for msg in msgs)
    done = await cli("send", "--even", "--batch", "-", "--json", stdin=lines.encode())
    assert done.status == status
    summary = json.loads(done.out)
    assert (summary["sent"], summary["failed"]) == (msgs.count("0000"), len(msgs) - msgs.count("0000"))
    assert sum(failure["count"] for failure in summary["failures"]) == summary["failed"]
    told = [json.loads(line) for line in done.err.splitlines()]
    assert [line["line"] for line in told] == [n for n, msg in enumerate(msgs, 1) if msg != "0000"]
    assert {line["error"]["reason"] for line in told} == {one["reason"] for one in summary["failures"]}


async def test_a_line_of_an_even_type_is_sent_only_if_asked_for(cli: Run, gateway: ScriptedGateway) -> None:
    """Without --even it is reported like a bad line, in whichever form the type is given."""
    gateway.send_stream = streams = Streams()
    forms: list[dict[str, object]] = [
        {"type": 0, "text": "a"},
        {"type": "0x0", "payload": "61"},
        {"msg": "000061"},
    ]
    text = "\n".join(json.dumps({"peer": PEER_HEX} | form) for form in forms).encode()
    done = await cli("send", "--batch", "-", "--json", stdin=text)
    assert (done.status, streams.sent) == (64 + 3, [])
    told = [json.loads(line) for line in done.err.splitlines()]
    assert [(one["line"], one["error"]["reason"]) for one in told] == [(n, "EVEN_TYPE") for n in (1, 2, 3)]
    assert (await cli("send", "--even", "--batch", "-", stdin=text)).status == 0
    assert len(streams.sent) == 3


WRONG = [
    ["--batch", "/nonexistent"],
    ["--batch", "/"],
    [PEER_HEX, "--batch", "-"],
    ["--batch", "-", "--check"],
    ["--batch", "-", "--type", "7"],
    [],
]


@pytest.mark.parametrize("arguments", WRONG)
async def test_wrong_use(cli: Run, arguments: list[str]) -> None:
    """A file that is missing, and options for a single message."""
    done = await cli("send", *arguments)
    assert done.status == 2
    assert done.err.startswith("error: ")

"""The command `custommsg`: what it sends, what it prints, how it ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from custommsg.v1 import custommsg_pb2 as pb
from custommsg_cli.show import printable
from support.client_gateway import PEER, QUEUED, ScriptedGateway, hang, queue, refuse_because, reply
from support.command import Run, start
from support.feed import message

Code = grpc.StatusCode
PEER_HEX = PEER.hex()
OTHER = pb.Peer(peer_id=b"\x03" * 33, num_channels=2)
CONNECTED = pb.Peer(peer_id=PEER, connected=True, address="127.0.0.1:9735", num_channels=1)
NODE = pb.Node(node_id=PEER, alias="al\x1b[31mice [bold]", network="regtest", version="v26.06.6")


MESSAGES = [
    (["--type", "37913", "--text", "hé"], b"", b"\x94\x19h\xc3\xa9"),
    (["--type", "0x9419", "--text", "hé"], b"", b"\x94\x19h\xc3\xa9"),
    (["--type", "0X9419", "--text", ""], b"", b"\x94\x19"),
    (["--type", "37913"], b"", b"\x94\x19"),
    (["--type", "00007"], b"", b"\x00\x07"),
    (["--type", "7", "--hex", "00fF"], b"", b"\x00\x07\x00\xff"),
    (["--type", "7", "--text", "--x"], b"", b"\x00\x07--x"),
    (["--type", "7", "--text", "\udcff"], b"", b"\x00\x07\xff"),
    (["--msg", "941900"], b"", b"\x94\x19\x00"),
    (["--type", "7", "--text", "-"], b"\xff raw\n", b"\x00\x07\xff raw\n"),
    (["--type", "7", "--hex", "-"], b" 00ff\n", b"\x00\x07\x00\xff"),
    (["--msg", "-"], b"9419\n", b"\x94\x19"),
]


@pytest.mark.parametrize(("options", "stdin", "msg"), MESSAGES)
async def test_each_way_to_give_a_message(
    cli: Run, gateway: ScriptedGateway, options: list[str], stdin: bytes, msg: bytes
) -> None:
    """Type and text, type and hex, the whole message in hex, or any of these from the standard input."""
    gateway.script.append(queue)
    done = await cli("send", PEER_HEX, *options, stdin=stdin)
    assert (done.status, done.err) == (0, "")
    assert gateway.requests == [pb.SendCustomMsgRequest(message=pb.OutboundMsg(peer_id=PEER, msg=msg))]


async def test_send_says_what_was_sent(cli: Run, gateway: ScriptedGateway) -> None:
    """It prints the type in decimal and hex, and lightningd's status."""
    gateway.script.append(queue)
    done = await cli("send", PEER_HEX, "--msg", "9419")
    assert done.out == f"Sent: type 37913 (0x9419). {QUEUED}\n"


async def test_check_says_once_that_nothing_was_sent(cli: Run, gateway: ScriptedGateway) -> None:
    """A check cannot be mistaken for a send, and the gateway's status, which says the same, is not repeated."""
    gateway.script.append(reply(pb.SendCustomMsgResponse(status="Checked, and not sent.", type=37913)))
    done = await cli("send", PEER_HEX, "--msg", "9419", "--check")
    assert gateway.requests[0].validate_only
    assert done.out == "Checked, not sent: type 37913 (0x9419).\n"


EVEN = [
    ["--type", "40000", "--text", "x"],
    ["--type", "0x9c40"],
    ["--type", "40000", "--hex", "00"],
    ["--msg", "9C4000"],
]


@pytest.mark.parametrize("options", EVEN)
async def test_an_even_type_is_sent_only_if_asked_for(
    cli: Run, gateway: ScriptedGateway, options: list[str]
) -> None:
    """A peer that does not know it disconnects. A check sends nothing, so it does not need --even."""
    gateway.script.append(reply(pb.ListEventsResponse()))
    done = await cli("send", PEER_HEX, *options)
    assert (done.status, done.out) == (2, "")
    assert not any(isinstance(one, pb.SendCustomMsgRequest) for one in gateway.requests)
    assert done.err.startswith("error: Type 40000 is even")
    assert "--even" in done.err
    gateway.script.extend([queue, queue])
    assert (await cli("send", PEER_HEX, *options, "--even")).out.startswith("Sent: type 40000")
    assert (await cli("send", PEER_HEX, *options, "--check")).out.startswith("Checked, not sent: type 40000")


async def test_an_even_type_is_sent_to_a_peer_that_has_sent_it(cli: Run, gateway: ScriptedGateway) -> None:
    """Such a peer knows the type. If the inbox cannot be asked, it is not known to."""
    gateway.script.extend([reply(pb.ListEventsResponse(events=[message(1, type=40000)])), queue])
    assert (await cli("send", PEER_HEX, "--type", "40000")).out.startswith("Sent: type 40000")
    wanted = pb.EventFilter(peer_ids=[PEER], types=[40000])
    assert gateway.requests[0] == pb.ListEventsRequest(filter=wanted, page_size=1)
    gateway.script.append(refuse_because(Code.PERMISSION_DENIED, "NOT_PERMITTED"))
    assert (await cli("send", PEER_HEX, "--type", "40000")).status == 2


async def test_peers_are_columns_to_copy_from(cli: Run, gateway: ScriptedGateway) -> None:
    """Whole node ids, the connected peers first, no spaces at the ends of lines."""
    gateway.script.append(reply(pb.ListPeersResponse(peers=[OTHER, CONNECTED])))
    done = await cli("peers")
    head, _, first, second = done.out.splitlines()
    assert head.split() == ["PEER", "ID", "CONNECTED", "ADDRESS", "CHANNELS"]
    assert first.split() == [PEER_HEX, "yes", "127.0.0.1:9735", "1"]
    assert second.split() == ["03" * 33, "no", "2"]
    assert all(line == line.rstrip() for line in done.out.splitlines())


async def test_no_peers_says_how_to_get_one(cli: Run, gateway: ScriptedGateway) -> None:
    """An empty table would not help."""
    gateway.script.append(reply(pb.ListPeersResponse()))
    assert "lightning-cli connect" in (await cli("peers")).out


async def test_info_shows_no_control_characters(cli: Run, gateway: ScriptedGateway) -> None:
    """Anyone can choose an alias: neither escape sequences nor markup in it have an effect."""
    gateway.script.append(reply(pb.GetInfoResponse(gateway_version="1.2", node_link_up=True, node=NODE)))
    done = await cli("info")
    told = dict(line.split("  ", 1) for line in done.out.splitlines())
    assert told["alias"].strip() == "al\N{REPLACEMENT CHARACTER}[31mice [bold]"
    assert told["link to node"].strip() == "up"
    assert told["node id"].strip() == PEER_HEX


async def test_info_of_a_gateway_whose_node_never_answered(cli: Run, gateway: ScriptedGateway) -> None:
    """What is not known is not shown."""
    gateway.script.append(reply(pb.GetInfoResponse(gateway_version="1.2")))
    assert (await cli("info")).out.split() == ["gateway", "1.2", "link", "to", "node", "down"]


async def test_json_is_for_programs(cli: Run, gateway: ScriptedGateway) -> None:
    """One document a command, bytes as hex, the option before or after the command."""
    gateway.script.extend(
        [
            queue,
            reply(pb.ListPeersResponse(peers=[CONNECTED])),
            reply(pb.GetInfoResponse(gateway_version="1.2", node_link_up=True, node=NODE)),
        ]
    )
    sent, peers, info = [
        json.loads((await cli(*command)).out)
        for command in (
            ["--json", "send", PEER_HEX, "--msg", "9419"],
            ["peers", "--json"],
            ["info", "--json"],
        )
    ]
    assert sent == {"status": QUEUED, "type": 37913}
    assert peers == [{"peer_id": PEER_HEX, "connected": True, "address": "127.0.0.1:9735", "num_channels": 1}]
    assert info["gateway_version"] == "1.2"
    assert info["node"] == {
        "node_id": PEER_HEX,
        "alias": NODE.alias,
        "network": "regtest",
        "version": "v26.06.6",
    }


FAILURES = [
    ("INVALID_NODE_ID", Code.INVALID_ARGUMENT, 67),
    ("OUTCOME_UNKNOWN", Code.DEADLINE_EXCEEDED, 68),
    ("PEER_UNKNOWN", Code.NOT_FOUND, 69),
    ("PEER_NOT_CONNECTED", Code.FAILED_PRECONDITION, 73),
    ("NODE_UNAVAILABLE", Code.UNAVAILABLE, 78),
]


@pytest.mark.parametrize(("reason", "code", "status"), FAILURES)
async def test_a_failed_call_ends_with_64_and_its_code(
    cli: Run, gateway: ScriptedGateway, reason: str, code: grpc.StatusCode, status: int
) -> None:
    """The reason and what to do next are on stderr; stdout stays empty."""
    gateway.script.append(refuse_because(code, reason, "Connect it\x07 first."))
    done = await cli("send", PEER_HEX, "--msg", "9419")
    assert (done.status, done.out) == (status, "")
    assert done.err == f"error: {reason}: Connect it\N{REPLACEMENT CHARACTER} first.\n"


async def test_a_failed_call_says_when_to_come_back(cli: Run, gateway: ScriptedGateway) -> None:
    """What the gateway says about fields and delays is shown; what would be said twice is not."""
    gateway.script.append(
        refuse_because(
            Code.RESOURCE_EXHAUSTED,
            "OVERLOADED",
            "Slow down.",
            retry_after=90,
            violations=[("msg", "Slow down."), ("peer_id", "busy")],
        )
    )
    done = await cli("send", PEER_HEX, "--msg", "9419")
    assert done.err == "error: OVERLOADED: Slow down.\n  peer_id: busy\nTry again in 90 s.\n"


async def test_a_failed_call_in_json(cli: Run, gateway: ScriptedGateway) -> None:
    """A program reads the reason without parsing prose."""
    gateway.script.append(
        refuse_because(
            Code.INTERNAL, "NODE_ERROR", "Odd.", metadata={"code": "-1"}, violations=[("msg", "x")]
        )
    )
    done = await cli("--json", "send", PEER_HEX, "--msg", "9419")
    assert done.status == 77
    assert json.loads(done.err) == {
        "error": {
            "reason": "NODE_ERROR",
            "code": "INTERNAL",
            "message": "Odd.",
            "detail": "",
            "metadata": {"code": "-1"},
            "retry_after": None,
            "violations": [{"field": "msg", "description": "x"}],
        }
    }


@pytest.mark.parametrize("options", [["--msg", "94190"], ["--msg", "zz"], ["--type", "7", "--hex", "0"]])
async def test_an_invalid_message_is_refused_without_asking_the_gateway(
    cli: Run, gateway: ScriptedGateway, options: list[str]
) -> None:
    """The error and the status are those that the gateway would give."""
    done = await cli("send", PEER_HEX, *options)
    assert (done.status, gateway.requests) == (67, [])
    assert done.err.startswith("error: INVALID_MESSAGE: ")


# What is typed, a part of the error, and the command whose help is named.
WRONG_USE: list[tuple[list[str], str, str]] = [
    (["send"], "Give the peer's node id", "send"),
    (["send", PEER_HEX], "Give the message", "send"),
    (["send", PEER_HEX, "--text", "x"], "Give the message", "send"),
    (["send", PEER_HEX, "--type", "7", "--msg", "9419"], "Give the message", "send"),
    (["send", PEER_HEX, "--msg", "9419", "--text", "x"], "Give the message", "send"),
    (["send", PEER_HEX, "--type", "7", "--text", "x", "--hex", "00"], "Give the message", "send"),
    (["send", PEER_HEX, "--type", "65536"], "'65536' is not a message type", "send"),
    (["send", PEER_HEX, "--type", "-1"], "'-1' is not a message type", "send"),
    (["send", PEER_HEX, "--type", "7.5"], "'7.5' is not a message type", "send"),
    (["send", PEER_HEX, "--type", "1_0"], "'1_0' is not a message type", "send"),
    (["send", PEER_HEX, "--type", "0x"], "'0x' is not a message type", "send"),
    (["send", PEER_HEX, "--type"], "--type needs a value", "send"),
    (["peers", "--tpye", "7"], "Unknown option: --tpye", "peers"),
    (["peers", "more"], "Unexpected argument: more", "peers"),
    (["pers"], 'Did you mean "peers"?', ""),
    (["peers", "--timeout", "0"], "A timeout must be above 0 seconds", "peers"),
    (["peers", "--timeout", "soon"], "--timeout takes a number, not 'soon'", "peers"),
    (["listen", "--count", "x"], "--count takes a number, not 'x'", "listen"),
    (["--address", "nowhere", "peers"], "'nowhere' is not a valid gateway address", "peers"),
    (["peers", "--rune", "two words"], "The rune is invalid", "peers"),
    (["peers", "--ca", "/nowhere"], "/nowhere: No such file or directory", "peers"),
    (["consumers", "delete"], "NAME is missing", "consumers delete"),
    (["consumers", "forget", "c"], "Unexpected argument: forget c", "consumers"),
    (["consumers", "list", "c"], "Unexpected argument: c", "consumers list"),
    (["--json", "consumers", "delete", "a", "b"], "Unexpected argument: b", "consumers delete"),
]


@pytest.mark.parametrize(("arguments", "problem", "command"), WRONG_USE)
async def test_wrong_use_ends_with_2(
    cli: Run, gateway: ScriptedGateway, arguments: list[str], problem: str, command: str
) -> None:
    """One line says what is wrong, another where to look, and the gateway is not asked."""
    done = await cli(*arguments)
    assert (done.status, done.out, gateway.requests) == (2, "", [])
    if "--json" in arguments:
        error = json.loads(done.err)["error"]
        assert error["reason"] == "USAGE"
        assert problem in error["message"]
        return
    said, hint = done.err.splitlines()
    assert said.startswith("error: ")
    assert problem in said
    assert hint == f"Try: {' '.join(['custommsg', command]).strip()} --help"


@pytest.mark.parametrize("arguments", [["--help"], ["send", "--help"], ["--version"], []])
async def test_help_and_version_end_with_0(cli: Run, arguments: list[str]) -> None:
    """Asking for help is not an error."""
    done = await cli(*arguments)
    assert (done.status, done.err) == (0, "")
    assert done.out


async def test_the_real_process_sends_and_ends_with_0(gateway: ScriptedGateway) -> None:
    """The command as it is installed, in a terminal whose encoding is ASCII."""
    gateway.script.append(reply(pb.SendCustomMsgResponse(status="Quéued", type=7)))
    process = await start(
        "send", PEER_HEX, "--type=7", "--text=x", CUSTOMMSG_ADDRESS=gateway.address, PYTHONIOENCODING="ascii"
    )
    assert await process.communicate() == (b"Sent: type 7 (0x0007). Qu?ued\n", b"")
    assert process.returncode == 0


async def test_the_real_process_reports_an_unreachable_gateway_and_nothing_else() -> None:
    """One error with the next step; no log of grpc's, no traceback."""
    process = await start("--address", "unix:/nowhere/at/all", "info")
    out, err = await process.communicate()
    assert (process.returncode, out) == (78, b"")
    first, second, third = err.decode().splitlines()
    assert first.startswith("error: NOT_SENT: The gateway cannot be reached.")
    assert "gRPC" not in first
    assert "--address" in second
    assert third.startswith("gRPC says: ")


async def test_ctrl_c_ends_the_process_without_a_traceback(gateway: ScriptedGateway) -> None:
    """The status is that of a process that was interrupted."""
    gateway.script.append(hang)
    process = await start("info", CUSTOMMSG_ADDRESS=gateway.address)
    await gateway.asked.wait()
    process.send_signal(signal.SIGINT)
    assert await process.communicate() == (b"", b"")
    assert process.returncode == 130


async def test_a_closed_pipe_ends_the_process_without_a_traceback(gateway: ScriptedGateway) -> None:
    """`custommsg peers | head -1` is not an error."""
    gateway.script.append(reply(pb.ListPeersResponse(peers=[CONNECTED] * 2000)))
    reading, writing = os.pipe()
    os.close(reading)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "custommsg_cli",
        "peers",
        stdout=writing,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "CUSTOMMSG_ADDRESS": gateway.address},
    )
    os.close(writing)
    assert (await process.communicate())[1] == b""
    assert process.returncode == 0


@given(st.text())
def test_what_is_printed_has_no_control_characters(text: str) -> None:
    """Printable characters stay in their places, and the others are replaced."""
    shown = printable(text)
    assert shown.isprintable()
    assert all(a == b or not b.isprintable() for a, b in zip(shown, text, strict=True))

"""The connection to lightningd, and the outcomes of requests when it fails."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custommsg_server.domain.errors import Reason, RelayError
from custommsg_server.domain.wire import join_message
from custommsg_server.node.lightningd.fair_queue import QUANTUM, Batch, FairQueue
from custommsg_server.node.lightningd.link import LinkOptions
from custommsg_server.node.lightningd.node import Lightningd
from custommsg_server.node.port import Outbound, PeerAddress
from support import standin
from support.keys import node_id
from support.standin import Connection, Request, StandIn

QUICK = LinkOptions(probe_interval=0.3, backoff_min=0.01, backoff_max=0.05, reply_timeout=5)
STATUS = standin.SENT["status"]


@asynccontextmanager
async def lightningd(rpc_file: Path, options: LinkOptions = QUICK) -> AsyncIterator[Lightningd]:
    """Run a link to the node at `rpc_file`."""
    node = Lightningd(rpc_file, options)
    task = asyncio.create_task(node.run())
    try:
        yield node
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def until_up(node: Lightningd, state: bool = True) -> None:
    """Wait until the link is up (or down)."""
    reached = asyncio.Event()
    node.watch(lambda is_up: reached.set() if is_up is state else None)
    await reached.wait()


async def send(
    node: Lightningd, number: int = 1, seconds: float = 10, caller: str = "somebody"
) -> str | RelayError:
    """Send one message with a number."""
    outbound = Outbound(node_id(), join_message(40001, number.to_bytes(4, "big")))
    [outcome] = await node.send([outbound], asyncio.get_running_loop().time() + seconds, caller)
    return outcome


def reason(outcome: str | RelayError) -> Reason:
    """Return the reason of a failed outcome."""
    assert isinstance(outcome, RelayError), outcome
    return outcome.reason


async def test_a_message_is_sent_and_its_status_comes_back(node: StandIn) -> None:
    """Without errors."""
    async with lightningd(node.rpc_file) as link:
        await until_up(link)
        assert await send(link) == STATUS
    [request] = node.sent()
    assert request["params"] == {"node_id": node_id().hex(), "msg": "9c4100000001"}
    assert request["id"].startswith("custommsg:sendcustommsg#")


async def test_no_socket_yet_is_unavailable_until_it_appears(rpc_file: Path) -> None:
    """The gateway may start before lightningd does."""
    async with lightningd(rpc_file) as link:
        assert reason(await send(link)) is Reason.NODE_UNAVAILABLE
        async with standin.running(rpc_file):
            await until_up(link)
            assert await send(link) == STATUS


async def test_a_socket_that_nobody_serves_is_unavailable(rpc_file: Path) -> None:
    """A crashed node leaves its socket file behind."""
    async with standin.running(rpc_file):
        pass
    import socket

    with socket.socket(socket.AF_UNIX) as stale:
        rpc_file.unlink(missing_ok=True)
        stale.bind(str(rpc_file))
    async with lightningd(rpc_file) as link:
        await asyncio.wait_for(_until_why(link, "refused"), 5)


async def _until_why(link: Lightningd, text: str) -> None:
    while True:
        outcome = await send(link)
        assert reason(outcome) is Reason.NODE_UNAVAILABLE
        if isinstance(outcome, RelayError) and text in outcome.message:
            assert outcome.retry_after is not None
            return
        await asyncio.sleep(0)


async def test_closed_after_the_request_was_written_is_outcome_unknown(node: StandIn) -> None:
    """Nobody knows whether the node has queued the message; the gateway does not retry."""

    async def close(connection: Connection, request: Request) -> None:
        connection.close()

    node.on_send = close
    async with lightningd(node.rpc_file) as link:
        await until_up(link)
        outcome = await send(link)
        assert reason(outcome) is Reason.OUTCOME_UNKNOWN
        assert isinstance(outcome, RelayError)
        assert outcome.retry_after is None
        assert not outcome.expired
        node.on_send = standin.answer
        await until_up(link, False)
        await until_up(link)
        assert await send(link, 2) == STATUS
    assert [request["params"]["msg"][-1] for request in node.sent()] == ["1", "2"]


async def test_half_a_reply_is_outcome_unknown(node: StandIn) -> None:
    """A partial reply has no outcome."""

    async def half(connection: Connection, request: Request) -> None:
        connection.raw(b'{"jsonrpc":"2.0","id":"' + request["id"].encode())
        await connection.writer.drain()
        connection.writer.close()

    node.on_send = half
    async with lightningd(node.rpc_file) as link:
        await until_up(link)
        assert reason(await send(link)) is Reason.OUTCOME_UNKNOWN


@pytest.mark.parametrize(
    "garbage", [b"\xff\xfe\n\n", b"no json\n\n", b"[]\n\n", b"1\n\n", b"[" * 100_000 + b"\n\n"]
)
async def test_garbage_ends_the_connection_and_the_link_comes_back(node: StandIn, garbage: bytes) -> None:
    """After invalid data no reply can be trusted, so the gateway opens a new connection."""

    async def spit(connection: Connection, request: Request) -> None:
        connection.raw(garbage)

    node.on_send = spit
    async with lightningd(node.rpc_file) as link:
        await until_up(link)
        assert reason(await send(link)) is Reason.OUTCOME_UNKNOWN
        node.on_send = standin.answer
        await until_up(link, False)
        await until_up(link)
        assert await send(link) == STATUS


async def test_a_reply_that_never_comes_ends_at_the_deadline(node: StandIn) -> None:
    """The request was written, so the outcome is unknown."""

    async def never(connection: Connection, request: Request) -> None:
        pass

    node.on_send = never
    async with lightningd(node.rpc_file) as link:
        await until_up(link)
        outcome = await send(link, seconds=0.05)
        assert reason(outcome) is Reason.OUTCOME_UNKNOWN
        assert isinstance(outcome, RelayError)
        assert outcome.expired


async def test_a_request_that_waits_for_its_turn_expires_as_not_sent(node: StandIn) -> None:
    """A request above the window is not written, and the caller learns that."""

    async def never(connection: Connection, request: Request) -> None:
        pass

    node.on_send = never
    async with lightningd(node.rpc_file, LinkOptions(window=1, probe_interval=30)) as link:
        await until_up(link)
        first = asyncio.create_task(send(link, 1, seconds=10))
        await node.wait_sent(1)
        outcome = await send(link, 2, seconds=0.05)
        assert reason(outcome) is Reason.NOT_SENT
        assert isinstance(outcome, RelayError)
        assert outcome.expired
        first.cancel()
    assert len(node.sent()) == 1


async def test_what_waits_is_bounded(node: StandIn) -> None:
    """More requests are refused at once, with a time to try again."""

    async def never(connection: Connection, request: Request) -> None:
        pass

    node.on_send = never
    async with lightningd(node.rpc_file, LinkOptions(window=1, max_waiting=2, probe_interval=30)) as link:
        await until_up(link)
        tasks = [asyncio.create_task(send(link, number)) for number in range(10)]
        done, waiting = await asyncio.wait(tasks, timeout=None, return_when=asyncio.FIRST_COMPLETED)
        assert {reason(task.result()) for task in done} == {Reason.OVERLOADED}
        for task in waiting:
            task.cancel()


async def test_a_cancelled_request_that_was_not_written_never_is(node: StandIn) -> None:
    """The waiting request of a cancelled caller is removed."""
    release = asyncio.Event()

    async def held(connection: Connection, request: Request) -> None:
        await release.wait()
        await standin.answer(connection, request)

    node.on_send = held
    async with lightningd(node.rpc_file, LinkOptions(window=1, probe_interval=30)) as link:
        await until_up(link)
        first = asyncio.create_task(send(link, 1))
        await node.wait_sent(1)
        second = asyncio.create_task(send(link, 2))
        third = asyncio.create_task(send(link, 3))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        release.set()
        assert await first == await third == STATUS
    assert [request["params"]["msg"][-1] for request in node.sent()] == ["1", "3"]


async def test_a_node_that_stops_answering_is_down_until_it_answers(node: StandIn) -> None:
    """A stopped process keeps its socket; only a request shows that it does not answer."""
    awake = asyncio.Event()

    async def asleep(connection: Connection, request: Request) -> None:
        await awake.wait()
        await standin.answer(connection, request)

    async with lightningd(node.rpc_file) as link:
        await until_up(link)
        node.on_getinfo = asleep
        await until_up(link, False)
        outcome = await send(link)
        assert reason(outcome) is Reason.NODE_UNAVAILABLE
        awake.set()
        await until_up(link)
        assert await send(link) == STATUS


async def test_requests_left_unanswered_too_long_make_a_new_connection(node: StandIn) -> None:
    """A lost reply must not take a place in the window forever."""

    async def never(connection: Connection, request: Request) -> None:
        pass

    node.on_send = never
    options = LinkOptions(window=2, probe_interval=0.05, reply_timeout=0.1, backoff_min=0.01)
    async with lightningd(node.rpc_file, options) as link:
        await until_up(link)
        outcome = await send(link)
        assert reason(outcome) is Reason.OUTCOME_UNKNOWN
        assert isinstance(outcome, RelayError)
        assert not outcome.expired
        await until_up(link, False)
        await until_up(link)
    assert len(node.connections) == 2


async def test_a_restart_between_two_sends_is_survived(rpc_file: Path) -> None:
    """The link comes back by itself."""
    async with lightningd(rpc_file) as link:
        for number in (1, 2):
            async with standin.running(rpc_file) as node:
                await until_up(link)
                assert await send(link, number) == STATUS
                assert len(node.sent()) == 1
            await until_up(link, False)


async def test_a_thousand_concurrent_sends_get_each_its_own_answer(node: StandIn) -> None:
    """Replies come in another order than requests, and each reaches its caller."""
    held: list[tuple[Connection, Request]] = []

    async def shuffled(connection: Connection, request: Request) -> None:
        held.append((connection, request))
        if len(held) == 500:
            for one, asked in reversed(held):
                one.reply(asked, {"status": asked["params"]["msg"]})
            held.clear()

    node.on_send = shuffled
    async with lightningd(node.rpc_file) as link:
        await until_up(link)
        outcomes = await asyncio.gather(*(send(link, number) for number in range(1000)))
    assert outcomes == [f"9c41{number:08x}" for number in range(1000)]
    numbers = [request["params"]["msg"] for request in node.sent()]
    assert numbers == outcomes, "written in the order of the calls, each once"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
async def test_replies_may_be_cut_anywhere(node: StandIn, size: int) -> None:
    """The socket is a stream: a read may return a part of a reply, or several replies."""

    async def pieces(connection: Connection, request: Request) -> None:
        status = {"status": "a\nb é"}
        body = json.dumps(
            {"jsonrpc": "2.0", "id": request["id"], "result": status}, indent=1, ensure_ascii=False
        )
        data = body.encode() + b"\n\n"
        for start in range(0, len(data), size):
            connection.raw(data[start : start + size])
            await connection.writer.drain()

    node.on_send = pieces
    async with lightningd(node.rpc_file) as link:
        await until_up(link)
        assert await asyncio.gather(*(send(link) for _ in range(20))) == ["a\nb é"] * 20


async def test_a_socket_path_longer_than_the_kernel_takes_is_reached(tmp_path: Path) -> None:
    """Paths in tests and containers may be longer than 100 characters."""
    import os

    folder = tmp_path / ("d" * 120)
    folder.mkdir()
    before = Path.cwd()
    os.chdir(folder)  # the stand-in, too, can bind only a short path
    try:
        async with standin.running(Path("lightning-rpc")), lightningd(folder / "lightning-rpc") as link:
            await until_up(link)
            assert await send(link) == STATUS
    finally:
        os.chdir(before)


async def test_a_connect_that_takes_long_leaves_the_link_alone(node: StandIn) -> None:
    """The link closes a connection that waits too long for a reply, so `connect` uses another one."""

    async def leave_unanswered(connection: Connection, request: Request) -> None:
        pass

    node.on_connect = leave_unanswered
    address = PeerAddress(node_id(), "192.0.2.1", 9735)
    loop = asyncio.get_running_loop()
    async with lightningd(node.rpc_file, replace(QUICK, reply_timeout=0.1, probe_interval=0.1)) as link:
        await until_up(link)
        downs: list[bool] = []
        link.watch(downs.append)
        with pytest.raises(RelayError, match="could not connect") as caught:
            await link.connect(address, loop.time() + 0.5)
        assert (caught.value.reason, downs) == (Reason.PEER_NOT_CONNECTED, [True])
        assert await send(link) == STATUS


async def test_a_peer_is_connected_to_where_it_was_said_to_be(node: StandIn) -> None:
    """Id, host and port are passed to the node."""
    async with lightningd(node.rpc_file) as link:
        await until_up(link)
        await link.connect(PeerAddress(node_id(), "::1", 9735), asyncio.get_running_loop().time() + 5)
    [request] = [request for request in node.requests if request["method"] == "connect"]
    assert request["params"] == {"id": node_id().hex(), "host": "::1", "port": 9735}


async def test_turns_go_round_callers(node: StandIn) -> None:
    """A call during three full streams is written after one turn of each, not after all their requests."""
    batch = [Outbound(node_id(), join_message(40001, bytes(200)))] * 2048
    async with lightningd(node.rpc_file, replace(QUICK, window=16)) as link:
        await until_up(link)
        deadline = asyncio.get_running_loop().time() + 60
        streams = [
            asyncio.create_task(link.send(batch, deadline, f"stream {number}", held_back=True))
            for number in range(3)
        ]
        await node.wait_sent(1)
        seen = len(node.sent())
        assert await send(link, 7) == STATUS
        [place] = [place for place, one in enumerate(node.sent()) if one["params"]["msg"] == "9c4100000007"]
        per_turn = QUANTUM // 500 + 1
        assert place - seen <= 16 + 3 * per_turn
        assert len(node.sent()) < 1000
        for outcomes in await asyncio.gather(*streams):
            assert outcomes == [STATUS] * 2048


async def test_the_order_of_what_one_caller_sends_is_kept(node: StandIn) -> None:
    """With any number of batches, and with requests of others between them."""
    async with lightningd(node.rpc_file, replace(QUICK, window=3)) as link:
        await until_up(link)
        tasks = [
            asyncio.create_task(send(link, number, caller=f"caller {number % 3}")) for number in range(300)
        ]
        assert await asyncio.gather(*tasks) == [STATUS] * 300
    numbers = [int(request["params"]["msg"][4:], 16) for request in node.sent()]
    for caller in range(3):
        assert [number for number in numbers if number % 3 == caller] == list(range(caller, 300, 3))


async def test_a_caller_with_much_that_waits_leaves_room_for_others(node: StandIn) -> None:
    """It has to wait when as many of its requests wait as there are free places; another is not refused."""

    async def never(connection: Connection, request: Request) -> None:
        pass

    node.on_send = never
    batch = [Outbound(node_id(), join_message(40001, b""))] * 60
    async with lightningd(node.rpc_file, LinkOptions(window=1, max_waiting=100, probe_interval=30)) as link:
        await until_up(link)
        deadline = asyncio.get_running_loop().time() + 60
        first = asyncio.create_task(link.send(batch, deadline, "greedy", held_back=True))
        await node.wait_sent(1)
        assert not link.has_room("greedy")
        assert link.has_room("modest")
        waiting = asyncio.create_task(link.room("greedy"))
        await asyncio.sleep(0)
        first.cancel()
        await waiting
        assert link.has_room("greedy")


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.lists(st.integers(1, 140_000), min_size=1, max_size=20)), max_size=12
    )
)
def test_no_caller_that_waits_falls_behind_by_more_than_a_turn(work: list[tuple[int, list[int]]]) -> None:
    """While two callers wait, their written bytes differ by at most a turn and a request."""
    turns, loop = FairQueue(), asyncio.new_event_loop()
    for caller, sizes in work:
        turns.add(Batch("x", ["." * size for size in sizes], str(caller), loop.create_future()))
    written: Counter[str] = Counter()
    waiting = {str(caller) for caller, _ in work}
    while (turn := turns.next()) is not None:
        batch, credit = turn
        first, size = batch.written, 0
        while batch.written < len(batch.requests) and size < credit:
            size += len(batch.requests[batch.written])
            batch.written += 1
        turns.wrote(batch, batch.written - first, size)
        written[batch.caller] += size
        waiting = {caller for caller in waiting if turns.count_of(caller)}
        amounts = [written[caller] for caller in waiting]
        assert not amounts or max(amounts) - min(amounts) <= 2 * (QUANTUM + 140_000)
    assert sum(written.values()) == sum(sum(sizes) for _, sizes in work)
    assert turns.count == 0
    loop.close()

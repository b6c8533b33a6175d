"""Sends what waits in the outbox when its peer is connected.

Who is connected is known from the node's list of peers, and from the connects and disconnects that lightningd tells of.
What waits stays in the store: a few messages of a few peers are in memory at a time, those that are being sent.

To one peer the messages go one after the other, each after the answer to the last: so the order holds even if the peer
leaves and comes back in between. That an attempt begins is stored before it is written to the node, and its outcome
afterwards; so after a kill nobody takes what may have been sent for something that was not.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, Protocol

import structlog

from custommsg_server.core.limits import PeerLimits
from custommsg_server.core.once import settle
from custommsg_server.core.uses import ENQUEUE, send_use
from custommsg_server.domain.caller import Use
from custommsg_server.domain.errors import Reason, RelayError
from custommsg_server.domain.events import Arrival, Kind
from custommsg_server.domain.outbox import Outcome, State, Waiting, arrival_of
from custommsg_server.domain.wire import NodeId
from custommsg_server.inbox.port import Inbox, InboxError
from custommsg_server.node.port import Node, Outbound
from custommsg_server.outbox.port import Outbox, OutboxError

log = structlog.get_logger()

WORKERS: Final = 16
"""Peers that are sent to at the same time."""
BATCH: Final = 16
"""Messages whose attempts are stored together, at most: so many may be UNKNOWN after a kill, of each worker."""
BATCH_SIZE: Final = 256 << 10
"""Bytes of them, at most, if that is not a single one."""
_TURN: Final = 256
"""Messages after which it is another peer's turn."""
_REPLY_TIME: Final = 30.0
"""Seconds that the node may take to answer."""
_AGAIN: Final = 1.0
"""Seconds after which something that failed is tried again."""
_ENDINGS: Final = 500
"""Endings that are told at once."""
_PEERS: Final = 1000
"""Peers that are looked at at once."""
_GONE: Final = (Reason.PEER_NOT_CONNECTED, Reason.PEER_UNKNOWN)
_NOT_NOW: Final = (
    *_GONE,
    Reason.NODE_UNAVAILABLE,
    Reason.NOT_SENT,
    Reason.OVERLOADED,
    Reason.GATEWAY_STOPPING,
)
"""Nothing was sent, and it may be sent later."""
_NOT_PERMITTED: Final = (Reason.NOT_PERMITTED, Reason.NO_CREDENTIAL)


class Judge(Protocol):
    """Judges uses of callers that have gone."""

    async def judge_later(
        self, credential: str, uses: Sequence[Use], deadline: float
    ) -> list[RelayError | None]:
        """Return for each use why it is not permitted, or None; by what `Permit.for_later` was."""


class Delivery:
    """Sends what waits, and tells the inbox what became of it.

    Args:
        outbox: what waits.
        node: sends.
        limits: what each peer may be sent.
        judge: judges each message again when it is sent.
        inbox: gets an event for each entry that ends.
        hears_of_peers: returns whether lightningd tells of connects now.
        look_interval: seconds between two questions to the node, who is connected, while something waits.
    """

    def __init__(
        self,
        outbox: Outbox,
        node: Node,
        limits: PeerLimits,
        judge: Judge,
        inbox: Inbox,
        hears_of_peers: Callable[[], bool],
        look_interval: float = 3.0,
    ) -> None:
        self._outbox = outbox
        self._node = node
        self._limits = limits
        self._judge = judge
        self._inbox = inbox
        self._hears_of_peers = hears_of_peers
        self._look_interval = look_interval
        self._connected: set[bytes] = set()
        self._changes: dict[bytes, bool] | None = None
        """What lightningd tells while the node lists its peers: newer than the list."""
        self._ready: dict[bytes, None] = {}
        """Peers for whom something may be sent now, in turn."""
        self._busy: set[bytes] = set()
        self._again: set[bytes] = set()
        """Peers that are being sent to, and have to be looked at again afterwards."""
        self._work = asyncio.Event()
        self._look = asyncio.Event()
        self._news = asyncio.Event()
        self._is_stopping = False
        self._workers: list[asyncio.Task[None]] = []
        self.ended: Counter[str] = Counter()
        """Entries that have ended, by the name of their final state."""
        outbox.watch_endings(self._news.set)
        node.watch(self._node_changed)

    async def run(self) -> None:
        """Send, until cancelled; call `stop` before that."""
        self._news.set()
        async with asyncio.TaskGroup() as group:
            self._workers = [group.create_task(self._send_in_turn()) for _ in range(WORKERS)]
            group.create_task(_for_ever(self._look_for_peers))
            group.create_task(_for_ever(self._tell))
            group.create_task(_for_ever(self._tidy))

    async def stop(self, seconds: float) -> None:
        """Begin nothing new, and wait until the outcomes of what was begun are stored.

        Args:
            seconds: how long to wait at most.
        """
        self._is_stopping = True
        self._work.set()
        if self._workers:
            await asyncio.wait(self._workers, timeout=max(1.0, seconds))

    def peers_changed(self, arrivals: Iterable[Arrival]) -> None:
        """Take note of connects and disconnects."""
        for one in arrivals:
            if one.kind is Kind.CONNECTED or one.kind is Kind.DISCONNECTED:
                is_connected = one.kind is Kind.CONNECTED
                self._set(one.peer_id, is_connected)
                if self._changes is not None:
                    self._changes[one.peer_id] = is_connected

    def enqueued(self, peer_ids: Iterable[bytes]) -> None:
        """Take note that something was enqueued for peers."""
        for peer_id in peer_ids:
            if peer_id in self._connected:
                self._make_ready(peer_id)

    # Who is connected

    def _node_changed(self, is_up: bool) -> None:
        if is_up:
            self._look.set()

    def _set(self, peer_id: bytes, is_connected: bool) -> None:
        if is_connected:
            self._connected.add(peer_id)
            self._make_ready(peer_id)
        else:
            self._connected.discard(peer_id)

    def _make_ready(self, peer_id: bytes) -> None:
        if peer_id in self._busy:
            self._again.add(peer_id)
        else:
            self._ready[peer_id] = None
            self._work.set()

    async def _look_for_peers(self) -> None:
        """Ask the node who is connected: when it has come up, and from time to time while something waits."""
        interval = self._look_interval * (20 if self._hears_of_peers() else 1)
        try:
            async with asyncio.timeout(interval):
                await self._look.wait()
        except TimeoutError:
            if not self._node.is_up or not await self._outbox.waiting_for(b"", 1):
                return
        self._look.clear()
        self._changes = {}
        try:
            deadline = asyncio.get_running_loop().time() + _REPLY_TIME
            peers = await self._node.list_peers(deadline, "")
            self._connected = {peer.peer_id for peer in peers if peer.connected}
            for peer_id, is_connected in self._changes.items():
                self._set(peer_id, is_connected)
            after = b""
            while found := await self._outbox.waiting_for(after, _PEERS):
                self.enqueued(found)
                after = found[-1]
        except BaseException:
            self._look.set()
            raise
        finally:
            self._changes = None

    # Sending

    async def _send_in_turn(self) -> None:
        while not self._is_stopping:
            if not self._ready:
                self._work.clear()
                await self._work.wait()
                continue
            peer_id = next(iter(self._ready))
            del self._ready[peer_id]
            self._busy.add(peer_id)
            is_more = False
            try:
                is_more = await self._send_to(peer_id)
            except (OutboxError, RelayError) as error:
                log.warning("cannot send from the outbox now; trying again", error=str(error))
                self._retry(peer_id)
            except Exception:
                log.exception("unexpected error while sending from the outbox; trying again")
                self._retry(peer_id)
            finally:
                self._busy.discard(peer_id)
                if is_more or peer_id in self._again:
                    self._again.discard(peer_id)
                    self._make_ready(peer_id)

    async def _send_to(self, peer_id: bytes) -> bool:
        """Send what waits for a peer; return whether there may be more to send now."""
        after, sent = "", 0
        while peer_id in self._connected and self._node.is_up and not self._is_stopping:
            waiting = await self._outbox.waiting(peer_id, after, BATCH, BATCH_SIZE)
            if not waiting:
                return False
            after = waiting[-1].entry_id
            if not await self._send_some(NodeId(peer_id), waiting):
                return False
            sent += len(waiting)
            if sent >= _TURN:
                return True
        return False

    async def _send_some(self, peer_id: NodeId, waiting: Sequence[Waiting]) -> bool:
        """Send messages in order; return whether the next ones may be sent now."""
        waiting = await self._permitted(peer_id, waiting)
        batch = [Outbound(peer_id, one.message) for one in waiting]
        try:
            await asyncio.sleep(self._limits.reserve(batch))
            attempts = await self._outbox.attempt([one.entry_id for one in waiting])
        except BaseException:
            self._limits.give_back(batch)
            raise
        entries = list(zip(waiting, batch, strict=True))
        left = [(one, outbound) for one, outbound in entries if one.entry_id in attempts]
        self._limits.give_back([outbound for one, outbound in entries if one.entry_id not in attempts])
        outcomes: list[Outcome] = []
        is_well = True
        try:
            while left and is_well:
                # If this is cancelled, nobody knows the outcome of this one; the others are not sent.
                outcome, is_well = await self._send(*left.pop(0))
                outcomes.append(outcome)
        finally:
            outcomes += [Outcome(one.entry_id, State.WAITING_FOR_PEER) for one, _ in left]
            self._limits.give_back([outbound for _, outbound in left])
            await self._settle(outcomes)
        return is_well

    async def _send(self, one: Waiting, outbound: Outbound) -> tuple[Outcome, bool]:
        """Send a message; return its outcome, and whether the next one may be sent now."""
        deadline = asyncio.get_running_loop().time() + _REPLY_TIME
        [result] = await self._node.send([outbound], deadline, one.caller, held_back=True)
        if not isinstance(result, RelayError):
            return Outcome(one.entry_id, State.SENT), True
        reason = result.reason
        if reason in _NOT_NOW:
            self._limits.give_back([outbound])
            if reason in _GONE:
                self._connected.discard(outbound.peer_id)
            else:
                self._retry(outbound.peer_id)
            return Outcome(one.entry_id, State.WAITING_FOR_PEER), False
        if reason is Reason.OUTCOME_UNKNOWN:
            self._retry(outbound.peer_id)
            if one.at_least_once:
                return Outcome(one.entry_id, State.WAITING_FOR_PEER), False
            return Outcome(one.entry_id, State.UNKNOWN, reason.name), False
        return Outcome(one.entry_id, State.FAILED, reason.name), True

    async def _permitted(self, peer_id: NodeId, waiting: Sequence[Waiting]) -> Sequence[Waiting]:
        """Fail what its caller may not send any more; return the rest.

        Raises:
            RelayError: the node cannot be asked now.
        """
        refused: set[str] = set()
        for credential in dict.fromkeys(one.credential for one in waiting):
            of_it = [one for one in waiting if one.credential == credential]
            uses = [send_use(Outbound(peer_id, one.message), ENQUEUE) for one in of_it]
            deadline = asyncio.get_running_loop().time() + _REPLY_TIME
            refusals = await self._judge.judge_later(credential, uses, deadline)
            for one, refusal in zip(of_it, refusals, strict=True):
                if refusal is not None and refusal.reason not in _NOT_PERMITTED:
                    raise refusal
                if refusal is not None:
                    refused.add(one.entry_id)
        if not refused:
            return waiting
        await self._settle([Outcome(one, State.FAILED, Reason.NOT_PERMITTED.name) for one in refused])
        return [one for one in waiting if one.entry_id not in refused]

    async def _settle(self, outcomes: Sequence[Outcome]) -> None:
        if outcomes:
            await settle(self._outbox, outcomes)

    def _retry(self, peer_id: bytes) -> None:
        asyncio.get_running_loop().call_later(_AGAIN, self.enqueued, [peer_id])

    # What became of it

    async def _tell(self) -> None:
        """Append an event to the inbox for each entry that has ended."""
        await self._news.wait()
        self._news.clear()
        try:
            while endings := await self._outbox.endings(_ENDINGS):
                node_id = self._node.info.node_id if self._node.info else b""
                await self._inbox.append([arrival_of(ending, node_id) for ending in endings])
                await self._outbox.told(endings[-1].number)
                self.ended.update(one.state.name for one in endings)
        except BaseException:
            self._news.set()
            raise

    async def _tidy(self) -> None:
        await asyncio.sleep(_AGAIN)
        while await self._outbox.tidy():
            pass


async def _for_ever(work: Callable[[], Awaitable[None]]) -> None:
    """Do something again and again; what fails is tried again after a moment."""
    while True:
        try:
            await work()
        except (OutboxError, InboxError, RelayError):
            await asyncio.sleep(_AGAIN)

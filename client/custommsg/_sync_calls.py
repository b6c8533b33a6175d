# Generated from client/custommsg/_aio_calls.py by `make sync`. Do not edit.
"""The calls of the blocking client that have one response, or pages of them."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Protocol, TypeVar

from custommsg import _core
from custommsg._retry import Attempts
from custommsg._sync_transport import call
from custommsg.errors import CustomMsgError
from custommsg.model import (
    Checked,
    Consumer,
    Enqueued,
    Inbox,
    Info,
    OutboxEntry,
    OutboxState,
    Peer,
    Sent,
)
from custommsg.v1 import custommsg_pb2 as pb

if TYPE_CHECKING:
    from custommsg._sync_transport import Rpc, Stub


class _PageRequest(Protocol):
    page_token: str


class _Page(Protocol):
    @property
    def next_page_token(self) -> str: ...


_Request = TypeVar("_Request")
_Response = TypeVar("_Response")
_P = TypeVar("_P", bound=_PageRequest)
_R = TypeVar("_R", bound=_Page)


class Calls:
    """The calls, and when they are retried; the base of `Client`."""

    def __init__(self, stub: Stub, *, timeout: float, retry: bool) -> None:
        self._stub = stub
        self._timeout = timeout
        self._retry = retry

    def send(
        self,
        peer: bytes | str,
        *,
        type: int | None = None,
        payload: bytes | None = None,
        msg: bytes | str | None = None,
        key: str | None = None,
        node_id: bytes | str | None = None,
        timeout: float | None = None,
    ) -> Sent:
        """Send one custom message to one connected peer.

        If it returns, the node has queued the message; it does not mean that the peer has received it. All guarantees
        are in custommsg.proto, at SendCustomMsg.

        Args:
            peer: the peer's node id: 33 bytes, or 66 hex digits.
            type: the message's type, 0 to 65,535; together with `payload`, instead of `msg`.
            payload: what follows the type, up to 65,533 bytes; empty by default.
            msg: the whole message with its type: 2 to 65,535 bytes, or the same in hex.
            key: an idempotency key: 1 to 100 printable ASCII characters, such as a UUID. The same call with the same
                key sends nothing a second time, and says what became of the first.
            node_id: our node to send from, in the same form as `peer`; None for the gateway's only node.
            timeout: seconds, all attempts together; None for the client's.

        Raises:
            InvalidRequest, PeerUnknown, PeerNotConnected, NodeUnknown, NotSent, NodeError: nothing was sent.
            IdempotencyKeyReused: another message has this key; nothing was sent.
            OutcomeUnknown: it may have been sent.
            CustomMsgError: any other failure; nothing was sent.
            TypeError: the message is given in neither way, or in both.
        """
        request = _core.send_request(
            peer, type=type, payload=payload, msg=msg, our_node=node_id, validate_only=False, key=key
        )
        return _core.sent(self._call(self._stub.SendCustomMsg, request, timeout, sends=True))

    def check(
        self,
        peer: bytes | str,
        *,
        type: int | None = None,
        payload: bytes | None = None,
        msg: bytes | str | None = None,
        node_id: bytes | str | None = None,
        timeout: float | None = None,
    ) -> Checked:
        """Run every check that `send` runs, the node's own included, and send nothing.

        Arguments and errors are those of `send`, except OutcomeUnknown: nothing can have been sent.
        """
        request = _core.send_request(
            peer, type=type, payload=payload, msg=msg, our_node=node_id, validate_only=True
        )
        return _core.checked(self._call(self._stub.SendCustomMsg, request, timeout, sends=False))

    def enqueue(
        self,
        peer: bytes | str,
        *,
        type: int | None = None,
        payload: bytes | None = None,
        msg: bytes | str | None = None,
        key: str | None = None,
        ttl: float | timedelta | None = None,
        expires: datetime | None = None,
        at_least_once: bool = False,
        node_id: bytes | str | None = None,
        timeout: float | None = None,
    ) -> Enqueued:
        """Put one message into the outbox: it is sent when the peer is connected.

        If it returns, the message is safe on the gateway's disk. All guarantees are in custommsg.proto, at
        EnqueueCustomMsg.

        Args:
            peer: the peer's node id: 33 bytes, or 66 hex digits.
            type: the message's type, 0 to 65,535; together with `payload`, instead of `msg`.
            payload: what follows the type, up to 65,533 bytes; empty by default.
            msg: the whole message with its type: 2 to 65,535 bytes, or the same in hex.
            key: an idempotency key: 1 to 100 printable ASCII characters, such as a UUID. The same call with the same
                key returns the same entry.
            ttl: after how long it is no longer to be sent, in seconds; None: the gateway decides.
            expires: when it is no longer to be sent, with a time zone; instead of `ttl`.
            at_least_once: send it again after an unknown outcome. By default it is sent at most once.
            node_id: our node to send from, in the same form as `peer`; None for the gateway's only node.
            timeout: seconds, all attempts together; None for the client's.

        Raises:
            InvalidRequest, NodeUnknown, NotSent, NotPermitted: nothing was enqueued.
            IdempotencyKeyReused: another message has this key; nothing was enqueued.
            OutcomeUnknown: it may have been enqueued. With a key, call it again.
            CustomMsgError: any other failure; nothing was enqueued.
            TypeError: the message is given in neither way, or in both; or both `ttl` and `expires`.
            ValueError: `expires` has no time zone.
        """
        request = _core.enqueue_request(
            peer,
            type=type,
            payload=payload,
            msg=msg,
            key=key,
            ttl=ttl,
            expires=expires,
            at_least_once=at_least_once,
            our_node=node_id,
        )
        # With a key, nothing is enqueued twice: so a lost answer can be asked for again.
        response = self._call(self._stub.EnqueueCustomMsg, request, timeout, sends=key is None)
        return _core.enqueued(response)

    def outbox_entry(
        self, entry_id: str | None = None, *, key: str | None = None, timeout: float | None = None
    ) -> OutboxEntry:
        """Return an entry of the outbox.

        Args:
            entry_id: its id; or:
            key: the idempotency key that this caller has given it.
            timeout: seconds, all attempts together; None for the client's.

        Raises:
            EntryUnknown: there is no such entry, or no longer.
            NotSent: the gateway or the outbox could not be reached, or not in time.
            CustomMsgError: any other failure.
            TypeError: neither an id nor a key is given, or both are.
        """
        request = pb.GetOutboxEntryRequest(**_core.one_entry(entry_id, key))
        response = self._call(self._stub.GetOutboxEntry, request, timeout, sends=False)
        return _core.outbox_entry(response.entry)

    def cancel(
        self, entry_id: str | None = None, *, key: str | None = None, timeout: float | None = None
    ) -> OutboxEntry:
        """Cancel an entry of the outbox that waits; return it.

        Args:
            entry_id: its id; or:
            key: the idempotency key that this caller has given it.
            timeout: seconds, all attempts together; None for the client's.

        Raises:
            EntryNotWaiting: it is being sent, or has ended.
            EntryUnknown: there is no such entry, or no longer.
            NotSent: the gateway or the outbox could not be reached, or not in time.
            CustomMsgError: any other failure.
            TypeError: neither an id nor a key is given, or both are.
        """
        request = pb.CancelOutboxEntryRequest(**_core.one_entry(entry_id, key))
        response = self._call(self._stub.CancelOutboxEntry, request, timeout, sends=False)
        return _core.outbox_entry(response.entry)

    def outbox(
        self,
        *,
        states: Iterable[OutboxState] | None = None,
        peers: Iterable[bytes | str] | None = None,
        node_id: bytes | str | None = None,
        timeout: float | None = None,
    ) -> Generator[OutboxEntry, None]:
        """List the entries of the outbox, those that were enqueued first at the beginning.

        Args:
            states: only entries in these states; None for all.
            peers: only entries for these peers, each 33 bytes or 66 hex digits; None for all.
            node_id: our node, in the same form as a peer's; None for the gateway's only node.
            timeout: seconds for each page, all attempts together; None for the client's.

        Raises:
            InvalidRequest: a node id is invalid, or a list is empty.
            NotSent: the gateway or the outbox could not be reached, or not in time.
            CustomMsgError: any other failure.
        """
        request = _core.outbox_request(states, peers, node_id)
        for page in self._pages(self._stub.ListOutbox, request, timeout):
            for raw in page.entries:
                yield _core.outbox_entry(raw)

    def ack(self, consumer: str, position: str, *, timeout: float | None = None) -> str:
        """Store how far a named consumer has come, so that its next subscription resumes there.

        Args:
            consumer: its name.
            position: everything up to this position, of an event or a subscription, is dealt with.
            timeout: seconds, all attempts together; None for the client's.

        Returns:
            The consumer's position now: `position`, or where it was if that is further.

        Raises:
            InvalidRequest: the name or the position is invalid.
            ConsumerUnknown: no subscription has given this name, or the consumer was deleted.
            PositionOfOtherInbox, PositionNotReached: the position is not of this inbox, or after its newest event.
            NotSent: the gateway or the inbox could not be reached, or not in time; it is safe to try again.
            CustomMsgError: any other failure.
            TypeError: the position is not text.
        """
        request = pb.AckCustomMsgsRequest(
            consumer=_core.consumer_name(consumer), position=_core.position(position, "position")
        )
        response = self._call(self._stub.AckCustomMsgs, request, timeout, sends=False)
        return response.position

    def consumers(self, *, timeout: float | None = None) -> list[Consumer]:
        """List all named consumers and how far each has come, by name.

        Args:
            timeout: seconds for each page of the list, all attempts together; None for the client's.

        Raises:
            NotSent: the gateway or the inbox could not be reached, or not in time.
            CustomMsgError: any other failure.
        """
        pages = self._pages(self._stub.ListConsumers, pb.ListConsumersRequest(), timeout)
        return [_core.consumer(raw) for page in pages for raw in page.consumers]

    def delete_consumer(self, consumer: str, *, timeout: float | None = None) -> None:
        """Delete a named consumer and its position.

        Args:
            consumer: its name.
            timeout: seconds, all attempts together; None for the client's.

        Raises:
            InvalidRequest: the name is invalid.
            ConsumerUnknown: there is no consumer of this name.
            NotSent: the gateway or the inbox could not be reached, or not in time.
            CustomMsgError: any other failure.
        """
        request = pb.DeleteConsumerRequest(consumer=_core.consumer_name(consumer))
        self._call(self._stub.DeleteConsumer, request, timeout, sends=False)

    def inbox(self, *, node_id: bytes | str | None = None, timeout: float | None = None) -> Inbox:
        """Describe what the inbox holds now.

        Args:
            node_id: our node: 33 bytes, or 66 hex digits; None for the gateway's only node.
            timeout: seconds, all attempts together; None for the client's.

        Raises:
            NotSent: the gateway or the inbox could not be reached, or not in time.
            CustomMsgError: any other failure.
        """
        request = pb.GetInboxRequest(node_id=_core.node_id(node_id))
        return _core.inbox(self._call(self._stub.GetInbox, request, timeout, sends=False))

    def peers(self, *, node_id: bytes | str | None = None, timeout: float | None = None) -> list[Peer]:
        """List all peers that the node knows now, by node id.

        Args:
            node_id: our node: 33 bytes, or 66 hex digits; None for the gateway's only node.
            timeout: seconds for each page of the list, all attempts together; None for the client's.

        Raises:
            NotSent: the gateway or the node could not be reached, or not in time.
            CustomMsgError: any other failure.
        """
        request = pb.ListPeersRequest(node_id=_core.node_id(node_id))
        pages = self._pages(self._stub.ListPeers, request, timeout)
        return [_core.peer(raw) for page in pages for raw in page.peers]

    def info(self, *, node_id: bytes | str | None = None, timeout: float | None = None) -> Info:
        """Describe the gateway, its node, and the link between them.

        Args:
            node_id: our node: 33 bytes, or 66 hex digits; None for the gateway's only node.
            timeout: seconds, all attempts together; None for the client's.

        Raises:
            NotSent: the gateway could not be reached, or not in time.
            CustomMsgError: any other failure.
        """
        request = pb.GetInfoRequest(node_id=_core.node_id(node_id))
        return _core.info(self._call(self._stub.GetInfo, request, timeout, sends=False))

    def _pages(self, rpc: Rpc[_P, _R], request: _P, timeout: float | None) -> Generator[_R, None]:
        while True:
            page = self._call(rpc, request, timeout, sends=False)
            yield page
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def _call(
        self, rpc: Rpc[_Request, _Response], request: _Request, timeout: float | None, *, sends: bool
    ) -> _Response:
        attempts = Attempts(self._timeout if timeout is None else timeout, retry=self._retry)
        while True:
            try:
                return call(rpc, request, attempts.time_left(), sends=sends)
            except CustomMsgError as failure:
                wait = attempts.wait_after(failure)
                if wait is None:
                    raise
            time.sleep(wait)

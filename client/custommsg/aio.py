"""The client for asyncio.

async with custommsg.aio.connect("127.0.0.1:9737") as client:
    await client.send(peer, type=37913, payload=b"hello")
    async for message in client.subscribe(types=[37913]):
        print(message.peer_id_hex, message.payload)
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self, overload
from weakref import WeakSet

import grpc

from custommsg import _core
from custommsg._aio_calls import Calls
from custommsg._aio_sender import Sender
from custommsg._aio_subscription import Subscription
from custommsg._aio_transport import open_channel
from custommsg._credentials import File, channel_credentials, checked_rune, with_rune
from custommsg._cursor import Cursor, EventReader
from custommsg._filter import list_request, subscribe_request
from custommsg._reconnect import Reconnects
from custommsg._retry import checked_timeout
from custommsg.events import Event, Message
from custommsg.model import DEFAULT_ADDRESS, Result
from custommsg.v1 import custommsg_pb2 as pb
from custommsg.v1.custommsg_pb2_grpc import CustomMsgServiceStub

if TYPE_CHECKING:
    from custommsg._aio_transport import Outbounds


def connect(
    address: str = DEFAULT_ADDRESS,
    *,
    timeout: float = 10.0,
    retry: bool = True,
    credentials: grpc.ChannelCredentials | None = None,
    ca: File | None = None,
    cert: File | None = None,
    key: File | None = None,
    rune: str | None = None,
) -> Client:
    """Make a client of the gateway at `address`, in a running event loop.

    It connects with the first call, and again by itself after the connection was lost. Many tasks can use one client
    at the same time.

    Args:
        address: "host:port", "[ipv6]:port" or "unix:/path".
        timeout: seconds for a call that has no timeout of its own, all its attempts together.
        retry: retry, until the timeout, if the gateway says that nothing was sent and when to come back. A call whose
            outcome is unknown is never retried.
        credentials: for TLS; None, and no files: no TLS.
        ca: PEM file of the certificate authority that signed the gateway's certificate; then the connection is TLS.
        cert: PEM file of our certificate, if the gateway asks for one.
        key: PEM file of its private key.
        rune: what `lightning-cli createrune` printed; every call carries it.

    Raises:
        ValueError: the address, the timeout, the rune or the combination of credentials is invalid.
        OSError: a file cannot be read.
    """
    return Client(
        address,
        timeout=timeout,
        retry=retry,
        credentials=channel_credentials(credentials, ca, cert, key),
        rune=checked_rune(rune),
    )


class Client(Calls):
    """A client of one gateway; made by `connect`, closed by `async with` or `close`."""

    def __init__(
        self,
        address: str,
        *,
        timeout: float,
        retry: bool,
        credentials: grpc.ChannelCredentials | None,
        rune: str | None = None,
    ) -> None:
        target, timeout = _core.target(address), checked_timeout(timeout)
        self._channel = open_channel(target, credentials)
        super().__init__(CustomMsgServiceStub(with_rune(self._channel, rune)), timeout=timeout, retry=retry)
        self._subscriptions: WeakSet[Subscription[Event]] = WeakSet()
        self._senders: WeakSet[Sender] = WeakSet()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection.

        Subscriptions and senders end, and calls in flight are cancelled. Closing twice does no harm.
        """
        for sender in list(self._senders):
            await sender.abort()
        for subscription in list(self._subscriptions):
            await subscription.close()
        await self._channel.close()

    def sender(self) -> Sender:
        """Make a sender for many messages on one stream: `send` without the cost of a call for each.

        async with client.sender() as sender:
            await sender.send(peer, type=37913, payload=b"hello")
        """
        sender = Sender(self._stub, timeout=self._timeout, retry=self._retry)
        self._senders.add(sender)
        return sender

    async def send_many(self, messages: Outbounds, *, timeout: float | None = None) -> AsyncGenerator[Result]:
        """Send many messages, and yield one result for each. A message that fails raises nothing.

        Messages to one peer are sent in the order of the input, or not at all. Results are yielded as they come: their
        `index` says which message they belong to. Some thousand messages are in flight at once; until their results
        are taken, no more of the input is read.

        If you stop before the end, what was not written yet is not sent. Close the generator then, with
        `contextlib.aclosing`.

        Args:
            messages: they are iterated here, no faster than they are sent. An iterable that blocks would block the
                event loop: make it an asynchronous one.
            timeout: seconds for each message, from when it was taken from the input; None for the client's.

        Raises:
            TypeError: a message is given in neither way, or in both.
        """
        async with self.sender() as sender, aclosing(sender.send_many(messages, timeout=timeout)) as results:
            async for result in results:
                yield result

    @overload
    def subscribe(
        self,
        *,
        types: Iterable[int | range] | None = None,
        peers: Iterable[bytes | str] | None = None,
        after: str | None = None,
        from_beginning: bool = False,
        consumer: str | None = None,
        peer_events: Literal[False] = False,
        interruptions: Literal[False] = False,
        outbox_events: Literal[False] = False,
        node_id: bytes | str | None = None,
        timeout: float | None = None,
    ) -> Subscription[Message]: ...

    @overload
    def subscribe(
        self,
        *,
        types: Iterable[int | range] | None = None,
        peers: Iterable[bytes | str] | None = None,
        after: str | None = None,
        from_beginning: bool = False,
        consumer: str | None = None,
        peer_events: bool = False,
        interruptions: bool = False,
        outbox_events: bool = False,
        node_id: bytes | str | None = None,
        timeout: float | None = None,
    ) -> Subscription[Event]: ...

    def subscribe(
        self,
        *,
        types: Iterable[int | range] | None = None,
        peers: Iterable[bytes | str] | None = None,
        after: str | None = None,
        from_beginning: bool = False,
        consumer: str | None = None,
        peer_events: bool = False,
        interruptions: bool = False,
        outbox_events: bool = False,
        node_id: bytes | str | None = None,
        timeout: float | None = None,
    ) -> Subscription[Event]:
        """Receive what peers send to the node, from now on or from an earlier position.

        The subscription connects again by itself and goes on where it stopped: in order, each event once. It ends when
        it is closed, or with an error after which trying again cannot help. It never skips events silently: if the
        inbox no longer has what comes next, it raises a PositionError; and an Interruption marks where the gateway
        itself may have missed messages. Without `interruptions=True` that is logged as a warning by the logger
        "custommsg", which Python prints on stderr by default.

        Args:
            types: only messages of these types, each a number or a Python range; None for all.
            peers: only events of these peers, each 33 bytes or 66 hex digits; None for all.
            after: start after this position, of an event or an earlier subscription.
            from_beginning: start with the oldest event that is kept.
            consumer: a name under which the gateway stores the position that `ack` gives it. The first subscription of
                a name starts where `after` or `from_beginning` say; a later one resumes after what was acknowledged,
                unless it gives `after`. While no yielded event waits for its ack, the subscription moves the stored
                position on by itself.
            peer_events: yield PeerConnected and PeerDisconnected, too.
            interruptions: yield Interruption, too.
            outbox_events: yield OutboxEntryEnded, too, for messages of these types.
            node_id: our node, in the same form as a peer's; None for the gateway's only node.
            timeout: seconds until it must be registered, at first and after each reconnect; None for the client's.
                Until then it fails like other calls; once registered, it has no time limit.

        Raises:
            InvalidRequest: the filter, the position, the consumer's name or a node id is invalid. (All other errors
                come with the iteration.)
            TypeError: both `after` and `from_beginning`; or an argument of a wrong type.
            ValueError: the timeout is not above 0.
        """
        request = subscribe_request(
            types=types,
            peers=peers,
            after=after,
            from_beginning=from_beginning,
            consumer=consumer,
            peer_events=peer_events,
            outbox_events=outbox_events,
            node_id=node_id,
        )
        reconnects = Reconnects(self._timeout if timeout is None else timeout, retry=self._retry)
        cursor = Cursor(request, interruptions=interruptions)
        subscription: Subscription[Event] = Subscription(self._stub, cursor, reconnects, self.ack)
        self._subscriptions.add(subscription)
        return subscription

    @overload
    def list_events(
        self,
        *,
        types: Iterable[int | range] | None = None,
        peers: Iterable[bytes | str] | None = None,
        after: str | None = None,
        peer_events: Literal[False] = False,
        interruptions: Literal[False] = False,
        outbox_events: Literal[False] = False,
        page_size: int | None = None,
        node_id: bytes | str | None = None,
        timeout: float | None = None,
    ) -> AsyncGenerator[Message]: ...

    @overload
    def list_events(
        self,
        *,
        types: Iterable[int | range] | None = None,
        peers: Iterable[bytes | str] | None = None,
        after: str | None = None,
        peer_events: bool = False,
        interruptions: bool = False,
        outbox_events: bool = False,
        page_size: int | None = None,
        node_id: bytes | str | None = None,
        timeout: float | None = None,
    ) -> AsyncGenerator[Event]: ...

    def list_events(
        self,
        *,
        types: Iterable[int | range] | None = None,
        peers: Iterable[bytes | str] | None = None,
        after: str | None = None,
        peer_events: bool = False,
        interruptions: bool = False,
        outbox_events: bool = False,
        page_size: int | None = None,
        node_id: bytes | str | None = None,
        timeout: float | None = None,
    ) -> AsyncGenerator[Event]:
        """List the events that the inbox has stored, oldest first, without waiting for new ones.

        It asks for one page after the other, as they are needed.

        Args:
            types: only messages of these types, each a number or a Python range; None for all.
            peers: only events of these peers, each 33 bytes or 66 hex digits; None for all.
            after: start after this position; None: with the oldest event that is kept.
            peer_events: yield PeerConnected and PeerDisconnected, too.
            interruptions: yield Interruption, too; without it they are logged as warnings, as in `subscribe`.
            outbox_events: yield OutboxEntryEnded, too, for messages of these types.
            page_size: how many events to ask for at a time; None: the gateway decides.
            node_id: our node, in the same form as a peer's; None for the gateway's only node.
            timeout: seconds for each page, all attempts together; None for the client's.

        Raises:
            InvalidRequest: the filter, the position, the page size or a node id is invalid. (All other errors come with
                the iteration.)
            PositionError: it cannot start at `after`; the subclass says why.
            NotSent: the gateway or the inbox could not be reached, or not in time.
            CustomMsgError: any other failure.
        """
        request = list_request(
            types=types,
            peers=peers,
            after=after,
            page_size=page_size,
            peer_events=peer_events,
            outbox_events=outbox_events,
            node_id=node_id,
        )
        reader = EventReader(
            peer_events=peer_events, interruptions=interruptions, outbox_events=outbox_events
        )
        return self._list_events(request, reader, timeout)

    async def _list_events(
        self, request: pb.ListEventsRequest, reader: EventReader, timeout: float | None
    ) -> AsyncGenerator[Event]:
        async for page in self._pages(self._stub.ListEvents, request, timeout):
            for raw in page.events:
                event = reader.read(raw)
                if event is not None:
                    yield event

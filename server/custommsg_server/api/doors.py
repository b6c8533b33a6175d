"""How the server meets what comes from outside: settings, and gRPC's options with their reasons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from custommsg_server.access.entry import Access
from custommsg_server.access.tls import Tls

MAX_STREAMS: Final = 1000
"""Calls at once on one connection: more wait in their client."""
HANDSHAKE_TIME: Final = 10.0
"""Seconds for a connection to say what it wants: who opens it and is silent costs a socket so long."""
AGE_GRACE: Final = 60.0
"""Seconds that calls on a connection may go on after its age has come: longer than any but a stream should take."""


@dataclass(frozen=True, slots=True)
class Doors:
    """How callers come in."""

    access: Access | None = None
    """Asks who they are; None: nobody does."""
    tls: Tls | None = None
    """For what comes over TCP; None: in the clear."""
    reflection: bool = True
    """Whether they can ask what the services look like."""
    max_connections: int = 10_000
    max_age: float = 0.0
    """Seconds that a connection may last; 0 is for ever."""

    @property
    def options(self) -> list[tuple[str, int]]:
        """gRPC's options: https://grpc.github.io/grpc/core/group__grpc__arg__keys.html."""
        options = [
            # Without this a second gateway could bind the same port and silently take half of the calls.
            ("grpc.so_reuseport", 0),
            # A request is a message of 64 kB at most, twice as long in hex; a stream's holds some of them.
            ("grpc.max_receive_message_length", 4 << 20),
            ("grpc.max_concurrent_streams", MAX_STREAMS),
            ("grpc.max_allowed_incoming_connections", self.max_connections),
            ("grpc.server_handshake_timeout_ms", int(HANDSHAKE_TIME * 1000)),
            # A rune and a trace context take some 1 kB; beyond the second bound a call is refused for sure.
            ("grpc.max_metadata_size", 8 << 10),
            ("grpc.absolute_max_metadata_size", 16 << 10),
            # Our client asks every 20 s whether we live; who asks more often than every 10 s is sent away.
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            ("grpc.http2.max_ping_strikes", 2),
            # Nothing else would ever find a subscriber that is gone without a word.
            ("grpc.keepalive_time_ms", 60_000),
            ("grpc.keepalive_timeout_ms", 20_000),
        ]
        if self.max_age:
            options += [
                ("grpc.max_connection_age_ms", int(self.max_age * 1000)),
                ("grpc.max_connection_age_grace_ms", int(AGE_GRACE * 1000)),
            ]
        return options

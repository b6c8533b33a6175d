"""What a command of the node's JSON-RPC is, and what it is given."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from custommsg_testing.devnode.address import Address
from custommsg_testing.devnode.networks import Network
from custommsg_testing.devnode.params import Param
from custommsg_testing.devnode.peers import Peers
from custommsg_testing.devnode.plugins import Plugins
from custommsg_testing.devnode.rune import Runes

Json = dict[str, Any]


class Node(Protocol):
    """What the commands need of their node. DevNode is one, and says what each attribute holds."""

    id: bytes
    alias: str
    version: str
    network: Network
    network_dir: Path
    binding: list[Address]
    peers: Peers
    remembered: set[bytes]
    announced: dict[bytes, Json]
    plugins: Plugins
    runes: Runes

    def record_death(self, what: str) -> None:
        """Record something that real lightningd would not have survived."""

    async def wind_down(self) -> None:
        """End everything but the RPC, which still has a reply to give, and then stop."""


class CheckedError(Exception):
    """The command was only to be checked, and all checks have passed. Not a failure."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a command.

    Args:
        node: the node whose command it is.
        check: run the checks and do nothing.
        request_id: the id of the request. Some ids that the node makes begin with it.
    """

    node: Node
    check: bool = False
    request_id: object = None

    def checked(self) -> None:
        """Mark the end of the checks. A call that is only to be checked ends here."""
        if self.check:
            raise CheckedError


@dataclass(frozen=True, slots=True)
class Command:
    """A command.

    Args:
        name: as it is called.
        params: its parameters, which become keyword arguments by their names. None: the command reads the params of
            the request itself, from its argument `given`.
        run: runs it, at once or as a coroutine; raises RpcError.
        spaced: its reply has spaces after `,` and `:`, as some of lightningd's have.
    """

    name: str
    params: tuple[Param, ...] | None
    run: Callable[..., Json | Awaitable[Json]]
    spaced: bool = False


def command(
    *params: Param, raw: bool = False, spaced: bool = False
) -> Callable[[Callable[..., Json | Awaitable[Json]]], Command]:
    """Make a command of a function, under the function's name.

    Args:
        params: its parameters.
        raw: it reads the params of the request itself.
        spaced: see Command.
    """

    def make(run: Callable[..., Json | Awaitable[Json]]) -> Command:
        return Command(run.__name__, None if raw else params, run, spaced)

    return make

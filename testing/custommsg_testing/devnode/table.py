"""The table of the node's commands, and what each of them is given."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from custommsg_testing.devnode.params import Param

if TYPE_CHECKING:
    from custommsg_testing.devnode.node import DevNode

Json = dict[str, Any]


class CheckedError(Exception):
    """The command was only to be checked, and all checks have passed: not a failure at all."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a command.

    Args:
        node: whose command it is.
        check: run the checks and do nothing.
        request_id: as given in the request, for ids that the node makes from it.
    """

    node: DevNode
    check: bool = False
    request_id: object = None

    def checked(self) -> None:
        """Say that all checks have passed; does not return when that was all that was asked for."""
        if self.check:
            raise CheckedError


@dataclass(frozen=True, slots=True)
class Command:
    """A command.

    Args:
        name: as called.
        params: what it takes; by these names they become keyword arguments. None: it reads the params of the
            request itself, as its argument `given`.
        run: does it, now or in a task; raises RpcError.
        spaced: its reply has spaces, as some of lightningd's have.
    """

    name: str
    params: tuple[Param, ...] | None
    run: Callable[..., Json | Awaitable[Json]]
    spaced: bool = False


COMMANDS: Final[dict[str, Command]] = {}
"""By name. Who adds a command writes one function."""


_Run = TypeVar("_Run", bound=Callable[..., Json | Awaitable[Json]])


def command(*params: Param | None, spaced: bool = False) -> Callable[[_Run], _Run]:
    """Add a function to the table, under its own name.

    Args:
        params: what it takes; a single None stands for whatever is given.
        spaced: as of Command.
    """

    def add(run: _Run) -> _Run:
        known = None if params == (None,) else tuple(param for param in params if param is not None)
        COMMANDS[run.__name__] = Command(run.__name__, known, run, spaced)
        return run

    return add

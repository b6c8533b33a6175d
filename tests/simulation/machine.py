"""The machine below the gateway: its clocks, event loop, threads and connections. Nothing runs by itself.

The gateway's code is the real one. What would run it in parallel is replaced: each callback of the loop, job of a
thread and piece of data is a step that the world takes when it wants to.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
import socket
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from dataclasses import dataclass
from typing import Any, cast

from custommsg_server.inbox.sqlite.writer import Writer

START_NS = 1_760_000_000 * 10**9


class Clock:
    """The time, for code that imports the module `time`."""

    def __init__(self) -> None:
        self._now_ns = 1000 * 10**9
        self.jumped_ns = 0
        """How far the machine's clock is off."""

    def monotonic_ns(self) -> int:
        return self._now_ns

    def monotonic(self) -> float:
        return self._now_ns / 1e9

    def time_ns(self) -> int:
        return START_NS + self._now_ns + self.jumped_ns

    perf_counter = monotonic

    def go_on(self, seconds: float) -> None:
        """Let time pass."""
        self._now_ns += int(seconds * 1e9) + 1


@dataclass(slots=True, eq=False)
class Job:
    """A call that waits for a thread."""

    pool: Threads
    call: Callable[[], Any]
    done: asyncio.Future[Any]

    def run(self) -> None:
        """Make the call, and hand the result to the loop as another thread would."""
        self.pool.waiting.remove(self)
        try:
            give, result = _result, self.call()
        except BaseException as error:
            give, result = _error, error
        self.done.get_loop().call_soon(give, self.done, result)


def _result(done: asyncio.Future[Any], result: Any) -> None:
    if not done.done():
        done.set_result(result)


def _error(done: asyncio.Future[Any], error: BaseException) -> None:
    if not done.done():
        done.set_exception(error)


class Threads:
    """In place of a ThreadPoolExecutor: jobs wait until the world runs them; one thread keeps their order."""

    def __init__(self, count: int, name: str) -> None:
        self.count = count
        self.name = name
        self.waiting: list[Job] = []
        self._is_shut = False

    def add(self, job: Job) -> None:
        """Have a job wait for a thread."""
        if self._is_shut:
            raise RuntimeError("cannot schedule new futures after shutdown")
        self.waiting.append(job)

    def shutdown(self) -> None:
        """Run what waits, and take no more, as the real one does."""
        self._is_shut = True
        while self.waiting:
            self.waiting[0].run()


class Loop(asyncio.AbstractEventLoop):
    """An event loop that runs one callback when it is told to.

    Callbacks run in the order in which they were handed over, as asyncio promises; the steps of tasks run in any order.
    """

    def __init__(self, clock: Clock, some: random.Random) -> None:
        self._clock = clock
        self._some = some
        self._plain: deque[asyncio.Handle] = deque()
        self._steps: list[asyncio.Handle] = []
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._number = itertools.count()
        self._own = Threads(1, "to_thread")
        self.pools: list[Threads] = [self._own]
        self.tasks: dict[asyncio.Task[Any], None] = {}
        self.errors: list[dict[str, Any]] = []
        self.servers: dict[str, Server] = {}
        """Sockets that are listened to, by path."""

    # What the world does.

    @property
    def is_ready(self) -> bool:
        """Whether a callback can run."""
        return bool(self._plain or self._steps)

    def run_one(self) -> None:
        """Run one callback."""
        at = self._some.randrange(len(self._steps) + bool(self._plain))
        handle = self._steps.pop(at) if at < len(self._steps) else self._plain.popleft()
        if not handle.cancelled():
            handle._run()

    def jobs(self) -> list[Job]:
        """Return the jobs that a thread may run now."""
        return [job for pool in self.pools for job in pool.waiting[: pool.count]]

    @property
    def next_timer(self) -> float | None:
        """When the next timer is due."""
        while self._timers and self._timers[0][2].cancelled():
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def fire(self) -> None:
        """Make the callbacks of timers ready that are due."""
        while (when := self.next_timer) is not None and when <= self.time():
            handle = heapq.heappop(self._timers)[2]
            self._enqueue(handle)

    def threads(self, count: int, name: str) -> Threads:
        """Make threads, in place of `ThreadPoolExecutor`."""
        pool = Threads(count, name)
        self.pools.append(pool)
        return pool

    def abandon(self) -> None:
        """End all tasks, whatever they wait for: the process was killed."""
        for pool in self.pools:
            pool.waiting.clear()
        for _ in range(100):
            for task in list(self.tasks):
                task.cancel()
            while self.is_ready:
                self.run_one()
            if not self.tasks:
                return
        raise AssertionError(f"tasks that cannot be cancelled: {list(self.tasks)}")

    # What asyncio and the gateway call.

    def _enqueue(self, handle: asyncio.Handle) -> None:
        owner = getattr(handle._callback, "__self__", None)  # type: ignore[attr-defined]
        (self._steps if isinstance(owner, asyncio.Task) else self._plain).append(handle)

    def time(self) -> float:
        return self._clock.monotonic()

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_soon(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._enqueue(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, next(self._number), handle))
        return handle

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        pass

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Coroutine[Any, Any, Any], **options: Any) -> asyncio.Task[Any]:  # type: ignore[override]
        task = asyncio.Task(coro, loop=self, **options)
        self.tasks[task] = None
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        del self.tasks[task]
        if not task.cancelled() and (error := task.exception()) is not None:
            self.errors.append({"message": "a task ended with it", "exception": error})

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        pool: Threads = executor or self._own
        job = Job(pool, lambda: func(*args), self.create_future())
        pool.add(job)
        return job.done

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.errors.append(context)

    async def create_unix_server(  # type: ignore[override]
        self, protocol_factory: Callable[[], asyncio.BaseProtocol], path: Any, *, start_serving: bool
    ) -> Server:
        return Server(self, protocol_factory, str(path))


class Server:
    """In place of asyncio's Server on a unix socket."""

    def __init__(self, loop: Loop, factory: Callable[[], asyncio.BaseProtocol], path: str) -> None:
        self._loop = loop
        self._factory = factory
        self._path = path

    async def start_serving(self) -> None:
        self._loop.servers[self._path] = self

    def close(self) -> None:
        self._loop.servers.pop(self._path, None)

    def connect(self) -> Wire:
        """Connect to it as another process does."""
        return Wire(self._loop, cast("asyncio.Protocol", self._factory()))


class Wire(asyncio.Transport):
    """A connection to the gateway: its transport there, and what was written at either end and has not arrived.

    The real sockets are there for the questions that the gateway asks of them; no data passes through them.
    """

    def __init__(self, loop: Loop, protocol: asyncio.Protocol) -> None:
        self.loop = loop
        self.protocol = protocol
        self.to_gateway = bytearray()
        self.to_node = bytearray()
        self.delivered = 0
        """Bytes that the gateway has read."""
        self.is_hung_up = False
        """Whether the other end is closed."""
        self.is_over = False
        """Whether the gateway was told of the end of the connection."""
        self._is_closing = False
        self._is_paused = False
        self._is_made = False
        self._ours, self._theirs = socket.socketpair()
        loop.call_soon(self._make)

    def _make(self) -> None:
        if not self._is_closing:
            self.protocol.connection_made(self)
            self._is_made = True

    # The other end.

    @property
    def may_deliver(self) -> bool:
        """Whether the gateway reads now, and there is something to read, be it the end."""
        is_read = self._is_made and not (self._is_closing or self._is_paused)
        return is_read and bool(self.to_gateway or self.is_hung_up)

    def deliver(self, size: int) -> None:
        """Let the gateway read some bytes, or the end if nothing is left."""
        if self.to_gateway:
            data = bytes(self.to_gateway[:size])
            del self.to_gateway[:size]
            self.delivered += len(data)
            self.protocol.data_received(data)
        else:
            self.protocol.eof_received()
            self.close()

    def hang_up(self) -> None:
        """Close the other end."""
        self.is_hung_up = True
        self._theirs.close()

    def reset(self) -> None:
        """Close the other end such that nothing more arrives, either way."""
        self.hang_up()
        self.to_gateway.clear()
        self.to_node.clear()
        if not self._is_closing:
            self._is_closing = True
            self.loop.call_soon(self._lose, ConnectionResetError())

    def cut(self) -> None:
        """Let nothing more arrive from this end: its process has ended."""
        self._is_closing = self.is_over = True

    def vanish(self) -> None:
        """Close this end."""
        self.cut()
        self._ours.close()

    def _lose(self, error: Exception | None) -> None:
        if not self.is_over and self._is_made:
            self.protocol.connection_lost(error)
            self.vanish()

    # The gateway's end.

    def close(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            self.loop.call_soon(self._lose, None)

    def is_closing(self) -> bool:
        return self._is_closing

    def write(self, data: Any) -> None:
        if not (self.is_hung_up or self.is_over):
            self.to_node += data

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = cast("asyncio.Protocol", protocol)

    def pause_reading(self) -> None:
        self._is_paused = True

    def resume_reading(self) -> None:
        self._is_paused = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._ours if name == "socket" else default


class SteppedWriter(Writer):
    """The inbox's writer without its thread: the world takes the turns."""

    is_over = False
    is_in_turn = False
    """Whether a turn has begun and has not ended: no other one may begin, since the thread would be busy."""

    def start(self) -> None:
        """Do nothing; the first turn is due."""

    def turn(self) -> bool:
        self.is_in_turn = True
        try:
            self.is_over = super().turn()
        finally:
            self.is_in_turn = False
        return self.is_over

    def join(self) -> None:
        """Take the turns that are left."""
        while not self.is_over:
            self.turn()

"""The gateway under a profiler: `profiled.py STATS ARGUMENT...`; SIGUSR1 begins, SIGUSR2 ends and writes STATS."""

from __future__ import annotations

import cProfile
import signal
import sys


def main() -> None:
    """Run `custommsg-server` with the other arguments."""
    stats = sys.argv.pop(1)
    profile = cProfile.Profile()

    def end(*_: object) -> None:
        profile.disable()
        profile.dump_stats(stats)

    signal.signal(signal.SIGUSR1, lambda *_: profile.enable())
    signal.signal(signal.SIGUSR2, end)

    from custommsg_server.__main__ import main as serve

    serve()


if __name__ == "__main__":
    main()

"""The gateway under a profiler: `profiled.py FILE ARGUMENT...`; SIGUSR1 begins, SIGUSR2 ends and writes FILE."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

from benchmarks.programs.sampler import Sampler


def main() -> None:
    """Run `custommsg-server` with the other arguments."""
    file = Path(sys.argv.pop(1))
    sampler = Sampler()

    def end(*_: object) -> None:
        sampler.end()
        part = file.with_suffix(".part")
        part.write_text(json.dumps(sampler.seen()))
        part.rename(file)

    signal.signal(signal.SIGUSR1, lambda *_: sampler.begin())
    signal.signal(signal.SIGUSR2, end)

    from custommsg_server.__main__ import main as serve

    serve()


if __name__ == "__main__":
    main()

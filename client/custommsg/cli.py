"""The command `custommsg`: its door. The rooms are in `custommsg._cli`, which needs the extra `cli`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

_EXTRA = {"cyclopts", "rich"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: what follows its name; None for those of the process.

    Returns:
        The exit status: 0; 2 if the command was used wrongly; 64 + the gRPC code if the call failed.
    """
    # grpc writes a log of its own to stderr, where our errors go. It looks here when it is imported.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        from custommsg._cli.app import run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        sys.stderr.write(
            f"error: the command needs {error.name}, which is not installed: pip install 'custommsg[cli]'\n"
        )
        return 2
    return run(sys.argv[1:] if arguments is None else arguments)


if __name__ == "__main__":
    sys.exit(main())

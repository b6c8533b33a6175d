"""Generate the blocking client from the asyncio client: `python tools/generate_sync.py RUFF TARGET`.

unasyncd turns async code into blocking code. What it does not do is here: the modules have other names, docstrings that
speak of tasks speak of threads, and the result is formatted as our own code is.

Args:
    RUFF: the ruff of the development environment, so that there is only one version of it.
    TARGET: the folder to write into.
"""

import subprocess
import sys
from pathlib import Path

from unasyncd.transformers import TreeTransformer

BANNER = "# Generated from client/custommsg/{source} by `make sync`. Do not edit.\n"
SOURCES = Path(__file__).resolve().parent.parent / "client/custommsg"
FILES = {
    "aio.py": "sync.py",
    "_aio_calls.py": "_sync_calls.py",
    "_aio_subscription.py": "_sync_subscription.py",
}

NAMES = {"contextlib.aclosing": "contextlib.closing"}

# What unasyncd leaves as it is: the names of modules in imports, and what docstrings say about tasks. Each text must be
# found in one of the files.
TEXTS = {
    "_aio_": "_sync_",
    "custommsg.aio": "custommsg.sync",
    "The client for asyncio.": "The blocking client.",
    "of the asyncio client": "of the blocking client",
    "at `address`, in a running event loop.": "at `address`.",
    "Many tasks can use one client": "Many threads can use one client",
    "for one task at a time": "for one thread at a time",
    """
    Cancelling a wait for the next event, as a timeout does, loses nothing: the next wait goes on after the last event.
""": "",
    """An iterable that blocks would block the
                event loop: make it an asynchronous one.""": """While the next message is waited for,
                no results are yielded.""",
    "  # cancelled, or Ctrl-C": "  # Ctrl-C",
    "contextlib.aclosing": "contextlib.closing",
}

# Remove unused imports, and format. UP028 makes a loop that only yields a `yield from`, which does the same here.
RUFF = (("check", "--fix-only", "--config", 'lint.extend-safe-fixes=["UP028"]'), ("format",))


def main(ruff: str, target: Path) -> None:
    """Generate all files."""
    sources = {name: (SOURCES / name).read_text() for name in FILES}
    for text in TEXTS:
        if not any(text in source for source in sources.values()):
            sys.exit(f"tools/generate_sync.py: no file has the text {text!r} any more. Change it here, too.")
    transform = TreeTransformer(transform_docstrings=True, extra_name_replacements=NAMES)
    for name, generated in FILES.items():
        source = sources[name]
        for text, twin in TEXTS.items():
            source = source.replace(text, twin)
        code = BANNER.format(source=name) + transform(source)
        for command in RUFF:
            code = subprocess.run(  # noqa: S603 -- our own tool
                [ruff, *command, "--quiet", "--no-cache", "--stdin-filename", SOURCES / generated, "-"],
                input=code,
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            ).stdout
        (target / generated).write_text(code)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))

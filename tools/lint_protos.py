"""Check the protos with buf, offline: `python tools/lint_protos.py [--write-baseline]`.

It lints them, checks their format, and compares our contract with proto/baseline.binpb, that of the last release (a
descriptor image, without comments): what would break a client of it is refused. --write-baseline writes that file.

buf would take google/rpc from a registry. Here it comes from the installed googleapis-common-protos, and both stand
side by side in a temporary workspace.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import google.rpc

ROOT = Path(__file__).resolve().parent.parent
BUF = Path(sys.executable).with_name("buf")
GOOGLE_RPC = Path(next(iter(google.rpc.__path__)))
BASELINE = ROOT / "proto/baseline.binpb"
DIALECTS = ROOT / "server/custommsg_server/api/dialects/protos"
CONFIG = """\
version: v2
modules:
  - path: proto
  - path: server
    lint:
      # The dialects keep the names that Core Lightning, Greenlight and LND use. Their files lie where no client has
      # files of the same names.
      use: [STANDARD]
      except: [
        PACKAGE_DIRECTORY_MATCH, PACKAGE_SAME_DIRECTORY, PACKAGE_VERSION_SUFFIX, DIRECTORY_SAME_PACKAGE,
        ENUM_VALUE_PREFIX, ENUM_ZERO_VALUE_SUFFIX,
        SERVICE_SUFFIX, RPC_REQUEST_RESPONSE_UNIQUE, RPC_REQUEST_STANDARD_NAME, RPC_RESPONSE_STANDARD_NAME]
  - path: googleapis
    lint: {ignore: [googleapis]}
lint: {use: [STANDARD]}
breaking: {use: [FILE]}
"""


def make_workspace(folder: Path) -> None:
    """Make a workspace of our protos, the dialects', and those that they import."""
    shutil.copytree(ROOT / "proto", folder / "proto")
    shutil.copytree(DIALECTS, folder / DIALECTS.relative_to(ROOT), ignore=shutil.ignore_patterns("*.py*"))
    (folder / "googleapis/google/rpc").mkdir(parents=True)
    shutil.copy(GOOGLE_RPC / "status.proto", folder / "googleapis/google/rpc")
    (folder / "buf.yaml").write_text(CONFIG)


def buf(folder: Path, *arguments: str) -> int:
    """Run buf in a workspace; return its exit status."""
    return subprocess.run([BUF, *arguments], cwd=folder, check=False).returncode  # noqa: S603 -- our own words


def lint(folder: Path) -> int:
    """Lint, and check the format; return the first exit status that is not 0."""
    for module in ("proto", "server"):
        if status := buf(folder, "lint", module) or buf(folder, "format", "--diff", "--exit-code", module):
            return status
    return 0


def compare(folder: Path) -> int:
    """Compare the contract with the baseline; return an exit status that is not 0 if it breaks clients."""
    status = buf(folder, "breaking", "proto", "--exclude-imports", "--against", str(BASELINE))
    if status:
        advice = (
            "A client of the last release would break. Add to the contract; deprecate, and remove nothing."
        )
        print(advice)  # noqa: T201 -- said to a person
    return status


def main(arguments: list[str]) -> int:
    """Check the protos, or write the baseline; return the exit status."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_workspace(folder)
        if arguments == ["--write-baseline"]:
            return buf(folder, "build", "proto", "--exclude-source-info", "-o", str(BASELINE))
        return lint(folder) or compare(folder)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

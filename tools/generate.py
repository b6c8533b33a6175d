"""Generate Python from proto/ into a folder: `python tools/generate.py FOLDER`."""

import sys
from pathlib import Path

import google.rpc
from grpc_tools import protoc

BANNER = "# Generated from {source} by `make proto`. Do not edit.\n"
ROOT = Path(__file__).resolve().parent.parent


def main(target: Path) -> int:
    """Run protoc for each .proto file; return its exit status."""
    googleapis = Path(next(iter(google.rpc.__path__))).parent.parent
    includes = [ROOT / "proto", googleapis, Path(protoc.__file__).parent / "_proto"]
    for source in sorted(str(path.relative_to(ROOT / "proto")) for path in (ROOT / "proto").rglob("*.proto")):
        arguments = [f"-I{path}" for path in includes]
        arguments += [
            f"--{kind}={target}" for kind in ("python_out", "grpc_python_out", "mypy_out", "mypy_grpc_out")
        ]
        if status := protoc.main(["protoc", *arguments, source]):
            return int(status)
        package = target / Path(source).parent
        for made in package.glob(f"{Path(source).stem}_pb2*.py*"):
            made.write_text(BANNER.format(source=f"proto/{source}") + made.read_text())
        for folder in (package, package.parent):
            if folder != target and not (folder / "__init__.py").exists():
                (folder / "__init__.py").touch()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

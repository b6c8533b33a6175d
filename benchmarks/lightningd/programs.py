"""What runs during the comparison: nodes, servers, peers."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Final

from pyln.client import LightningRpc

from benchmarks.inbox.hook import token_line
from benchmarks.process import StartError, address_of, environment, started, wait_for_line

ROOT: Final = Path(__file__).parents[2]
BACKEND: Final = ROOT / "tests" / "support" / "genesis_backend.py"
CLIENT: Final = ROOT / "benchmarks" / "compiled" / "bin" / "bench-client"
PEERS: Final = 16
"""Peers that messages are sent to, and peers that send: a node reads at most 1 MB/s of each."""
_PATIENCE: Final = 30.0


@dataclass(frozen=True, slots=True)
class Certificates:
    """Files of a CA, of a server and of a client, for mutual TLS."""

    folder: Path
    suffix: str
    """How the names of the keys' files end."""

    def client(self) -> list[str]:
        """Return arguments of the compiled client."""
        files = {"ca": "ca.pem", "cert": "client.pem", "key": f"client{self.suffix}"}
        return [part for flag, name in files.items() for part in (f"--{flag}", str(self.folder / name))]

    def server(self) -> tuple[str, str, str]:
        """Return the files of a server: the CA, its certificate, its key."""
        folder = self.folder
        return str(folder / "ca.pem"), str(folder / "server.pem"), str(folder / f"server{self.suffix}")


@dataclass(frozen=True, slots=True)
class Lightningd:
    """A real node."""

    process: subprocess.Popen[bytes]
    rpc_file: Path
    address: str
    """`id@host:port`."""
    version: str


@dataclass(frozen=True, slots=True)
class Server:
    """A gRPC server."""

    address: str
    certificates: Certificates
    pid: int | None
    """Its process; None where lightningd has started it."""
    marker: str
    """What stands in the command line of its processes that lightningd has started."""
    start_s: float
    """Seconds from its start until it took connections."""


@dataclass(slots=True)
class Channel:
    """lightningd's end of a plugin channel, introduced; the compiled client goes on with it."""

    socket: socket.socket
    kind: str

    def drain(self) -> None:
        """Discard what the server has written: lightningd would have read it, too."""
        try:
            while self.socket.recv(1 << 16, socket.MSG_DONTWAIT):
                pass
        except BlockingIOError:
            pass


@contextmanager
def lightningd(program: str, folder: Path, *options: str) -> Iterator[Lightningd]:
    """Run a node on a chain of one block, as its users would, with all its plugins and its own log level.

    Raises:
        StartError: it did not start.
    """
    folder.mkdir(parents=True)
    port = free_port()
    command = [
        program,
        f"--lightning-dir={folder}",
        "--network=regtest",
        "--disable-plugin=bcli",
        f"--plugin={BACKEND}",
        f"--bind-addr=127.0.0.1:{port}",
        f"--log-file={folder / 'log'}",
        "--disable-dns",
        *options,
    ]
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    with (folder / "errors").open("w") as errors:
        process = subprocess.Popen(command, stdout=errors, stderr=errors, env=env)
    try:
        # The RPC answers before the node listens for peers, so only the log tells.
        _wait_for_node(process, folder)
        rpc_file = folder / "regtest" / "lightning-rpc"
        info = LightningRpc(str(rpc_file)).getinfo()
        yield Lightningd(process, rpc_file, f"{info['id']}@127.0.0.1:{port}", info["version"])
    finally:
        _end(process)


def _wait_for_node(process: subprocess.Popen[bytes], folder: Path) -> None:
    end = monotonic() + _PATIENCE
    while monotonic() < end and process.poll() is None:
        log = folder / "log"
        if log.exists() and "Server started with public key" in log.read_text():
            return
        sleep(0.02)
    said = "".join(file.read_text()[-2000:] for file in (folder / "errors", folder / "log") if file.exists())
    raise StartError(f"lightningd did not start:\n{said}")


@contextmanager
def gateway(
    name: str,
    folder: Path,
    rpc_file: Path,
    certificates: Certificates,
    settings: Mapping[str, str],
    stats: Path | None = None,
) -> Iterator[Server]:
    """Run a gateway as its users do, with mutual TLS, until lightningd can be reached.

    Args:
        name: of its log and its folder.
        folder: where these are.
        rpc_file: lightningd's socket.
        certificates: its own, and the CA of its clients.
        settings: more settings, as environment variables.
        stats: run it under a profiler that writes to this file.
    """
    port = free_port()
    ca, cert, key = certificates.server()
    data = folder / f"{name}-data"
    env = {
        "CUSTOMMSG_LISTEN": f"127.0.0.1:{port}",
        "CUSTOMMSG_REQUIRE": "client-cert",
        "CUSTOMMSG_TLS_CERT": cert,
        "CUSTOMMSG_TLS_KEY": key,
        "CUSTOMMSG_TLS_CLIENT_CA": ca,
        "CUSTOMMSG_RPC_FILE": str(rpc_file),
        "CUSTOMMSG_DATA_DIR": str(data),
        "CUSTOMMSG_LOG_FORMAT": "json",
    }
    module, arguments = "custommsg_server", ["serve"]
    if stats is not None:
        module, arguments = "benchmarks.programs.profiled", [str(stats), "serve"]
    start = monotonic()
    with started(name, module, *arguments, folder=folder, env=env | dict(settings)) as process:
        seconds = _wait_for_port(port, process, start)
        wait_for_line(process, folder / f"{name}.log", "node link up")
        yield Server(f"127.0.0.1:{port}", certificates, process.pid, str(data), seconds)


def attach_gateway(data: Path) -> Channel:
    """Open the gateway's plugin channel, in place of the script that lightningd runs."""
    opened = socket.socket(socket.AF_UNIX)
    end = monotonic() + _PATIENCE
    while True:
        try:
            opened.connect(str(data / "plugin.sock"))
            break
        except OSError:
            if monotonic() > end:
                raise
            sleep(0.02)
    opened.sendall(token_line(data))
    introduce(opened, data, {})
    return Channel(opened, "hook")


@contextmanager
def cln_grpc(program: str, folder: Path) -> Iterator[tuple[Server, Channel]]:
    """Run cln-grpc as lightningd does, with the benchmark in lightningd's place."""
    folder.mkdir(parents=True, exist_ok=True)
    ours, theirs = socket.socketpair()
    port = free_port()
    with (folder / "cln-grpc.log").open("w") as errors:
        start = monotonic()
        process = subprocess.Popen(
            [program],
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
            stderr=errors,
            cwd=folder,  # where lightningd starts its plugins, and where cln-grpc puts its certificates
            env={**os.environ, "LIGHTNINGD_PLUGIN": "1"},
        )
    theirs.close()
    try:
        introduce(ours, folder, {"grpc-host": "127.0.0.1", "grpc-port": port, "grpc-msg-buffer-size": 1024})
        seconds = _wait_for_port(port, process, start)
        yield (
            Server(f"127.0.0.1:{port}", Certificates(folder, "-key.pem"), process.pid, "", seconds),
            Channel(ours, "notification"),
        )
    finally:
        ours.close()
        _end(process)


def introduce(channel: socket.socket, folder: Path, options: Mapping[str, str | int]) -> None:
    """Do what lightningd does before the first message."""
    configuration = {
        "lightning-dir": str(folder),
        "rpc-file": "lightning-rpc",
        "startup": True,
        "network": "regtest",
        "feature_set": {"init": "", "node": "", "channel": "", "invoice": ""},
    }
    _ask(channel, "getmanifest", {"allow-deprecated-apis": False})
    _ask(channel, "init", {"options": dict(options), "configuration": configuration})


def _ask(channel: socket.socket, method: str, params: Mapping[str, object]) -> None:
    call = {"jsonrpc": "2.0", "id": f"cln:{method}#1", "method": method, "params": params}
    channel.sendall(json.dumps(call).encode() + b"\n\n")
    while True:
        answer = json.loads(_frame(channel))
        if "id" in answer:
            if "result" not in answer:
                raise StartError(f"{method}: {answer}")
            return


def _frame(channel: socket.socket) -> bytes:
    # Byte by byte: what follows is the compiled client's to read.
    data = b""
    while not data.endswith(b"\n\n"):
        byte = channel.recv(1)
        if not byte:
            raise StartError("the server has closed the plugin channel")
        data += byte
    return data


@contextmanager
def empty(folder: Path, certificates: Certificates) -> Iterator[Server]:
    """Run the gRPC server that does nothing."""
    with started("empty", "benchmarks.programs.empty", *certificates.server(), folder=folder) as process:
        yield Server(address_of(process, folder / "empty.log"), certificates, process.pid, "", 0.0)


@contextmanager
def standin(folder: Path) -> Iterator[Path]:
    """Run the node that says yes to everything; yield its socket."""
    rpc_file = folder / "lightning-rpc"
    with started("standin", "benchmarks.programs.node", str(rpc_file), folder=folder) as process:
        address_of(process, folder / "standin.log")
        yield rpc_file


@contextmanager
def peers(nodes: Sequence[Lightningd]) -> Iterator[list[str]]:
    """Connect peers to nodes; they discard what they get. Yield their ids."""
    addresses = ",".join(node.address for node in nodes)
    command = [str(CLIENT), "peers", "--nodes", addresses, "--count", str(PEERS)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise StartError("the peers did not connect")
        yield json.loads(line)
    finally:
        _end(process)


def make_certificates(folder: Path) -> Certificates:
    """Make the certificates of the gateway, with its own command."""
    command = [sys.executable, "-m", "custommsg_server", "certs", str(folder)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment())
    return Certificates(folder, ".key")


def free_port() -> int:
    """Return a port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for_port(
    port: int, process: subprocess.Popen[str] | subprocess.Popen[bytes], start: float
) -> float:
    """Wait until somebody listens; return the seconds since `start`."""
    while monotonic() < start + _PATIENCE and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            sleep(0.001)
        else:
            return monotonic() - start
    raise StartError(f"nobody listens on port {port}")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()

"""The gateway as a process: start, health, drain, stop."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from custommsg.v1 import custommsg_pb2 as pb
from custommsg.v1 import custommsg_pb2_grpc
from custommsg_server.access.certs import make
from custommsg_server.api.service import SERVICE
from custommsg_testing import devnode
from support import processes, standin
from support.gateways import gateway
from support.keys import node_id
from support.lightningd_end import LightningdEnd
from support.standin import StandIn

REQUEST = pb.SendCustomMsgRequest(message=pb.OutboundMsg(peer_id=node_id(), msg_hex="9c4101"))
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def started(program: processes.Program) -> str:
    """Wait until the gateway listens; return its address."""
    line = json.loads(await program.line("gateway listening"))
    return str(line["addresses"][0])


async def watch_until(stub: health_pb2_grpc.HealthStub, service: str, status: int) -> None:
    """Wait until the health check reports a status."""
    async for answer in stub.Watch(health_pb2.HealthCheckRequest(service=service)):
        if answer.status == status:
            return


async def test_readiness_follows_the_node_and_liveness_does_not(rpc_file: Path) -> None:
    """The process serves from the start; the service only while the node answers."""
    async with gateway(rpc_file) as address, grpc.aio.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        assert (await stub.Check(health_pb2.HealthCheckRequest(service=""))).status == SERVING
        await watch_until(stub, SERVICE, NOT_SERVING)
        async with standin.running(rpc_file):
            await watch_until(stub, SERVICE, SERVING)
        await watch_until(stub, SERVICE, NOT_SERVING)
        assert (await stub.Check(health_pb2.HealthCheckRequest(service=""))).status == SERVING


async def test_sigterm_finishes_what_is_in_flight_and_exits_0(node: StandIn) -> None:
    """An open health watch does not delay it."""
    release = asyncio.Event()

    async def held(connection: standin.Connection, request: standin.Request) -> None:
        await release.wait()
        await standin.answer(connection, request)

    node.on_send = held
    arguments = ("serve", "--insecure", "--listen", "127.0.0.1:0", "--rpc-file", str(node.rpc_file))
    async with processes.server(*arguments) as program:
        async with grpc.aio.insecure_channel(await started(program)) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            await watch_until(health, SERVICE, SERVING)
            stub = custommsg_pb2_grpc.CustomMsgServiceStub(channel)
            call = stub.SendCustomMsg(REQUEST)
            await node.wait_sent(1)
            watcher = health.Watch(health_pb2.HealthCheckRequest(service=SERVICE))
            assert (await watcher.read()).status == SERVING
            program.process.send_signal(signal.SIGTERM)
            assert (await watcher.read()).status == NOT_SERVING
            release.set()
            assert (await call).status == standin.SENT["status"]
            async with asyncio.timeout(10):
                assert await program.process.wait() == 0
        await program.line("gateway stopped")
        down = [json.loads(line) for line in program.lines if "node link down" in line]
        assert [(line["level"], line["why"]) for line in down[-1:]] == [("info", "the gateway is stopping")]
        assert all("connection to it was lost" not in line["why"] for line in down)


async def test_sigterm_with_a_call_that_does_not_end_stops_at_the_drain_time(node: StandIn) -> None:
    """After the drain time the process ends in any case, with 0."""

    async def never(connection: standin.Connection, request: standin.Request) -> None:
        pass

    node.on_send = never
    arguments = (
        "serve",
        "--insecure",
        "--listen",
        "127.0.0.1:0",
        "--rpc-file",
        str(node.rpc_file),
        "--drain-time",
        "0.2",
    )
    async with processes.server(*arguments) as program:
        async with grpc.aio.insecure_channel(await started(program)) as channel:
            await watch_until(health_pb2_grpc.HealthStub(channel), SERVICE, SERVING)
            stub = custommsg_pb2_grpc.CustomMsgServiceStub(channel)
            call = stub.SendCustomMsg(REQUEST)
            await node.wait_sent(1)
            program.process.send_signal(signal.SIGTERM)
            with pytest.raises(grpc.aio.AioRpcError):
                await call
            async with asyncio.timeout(10):
                assert await program.process.wait() == 0
        assert await program.line("still in progress")


@pytest.mark.parametrize(
    ("part", "where"),
    [
        ("plugin", "custommsg_server.node.lightningd.attach.Attachment._keep_attached"),
        ("node link", "custommsg_server.node.lightningd.link.Link._connect_and_watch"),
        ("inbox", "custommsg_server.inbox.sqlite.writer.Writer._write"),
    ],
)
async def test_a_part_that_dies_ends_the_process(node: StandIn, part: str, where: str) -> None:
    """With 70 and a log line that names it; calls in progress get their answers before."""
    module, name, method = where.rsplit(".", 2)
    first = f"import sys; import {module} as m; m.{name}.{method} = lambda *_: 1 / 0"
    arguments = ("serve", "--insecure", "--listen", "127.0.0.1:0", "--rpc-file", str(node.rpc_file))
    async with processes.server(*arguments, first=first) as program:
        async with asyncio.timeout(20):
            assert await program.process.wait() == 70
        assert json.loads(await program.line("has ended because of a bug; the gateway stops"))["part"] == part
        assert await program.line("gateway stopped")
    assert "ZeroDivisionError" in "".join(program.lines)


async def test_no_folder_is_made_for_a_node_that_is_not_there(short_path: Path) -> None:
    """The log names the folder; when the node has created it, the gateway receives."""
    (short_path / "home").mkdir()
    folder = short_path / "home" / ".lightning" / "regtest"
    arguments = ("serve", "--insecure", "--listen", "127.0.0.1:0", "--network", "regtest")
    env = {"HOME": str(short_path / "home")}
    async with processes.server(*arguments, env=env) as program:
        await program.line("gateway listening")
        for line in ("inbox fails", "cannot attach lightningd"):
            assert f"{folder} does not exist yet" in await program.line(line)
        assert not list((short_path / "home").iterdir())
        async with devnode.run(folder.parent, "regtest"):
            await program.line("lightningd is attached")
            assert (folder / "custommsg" / "inbox.sqlite3").exists()


async def test_serve_loads_nothing_heavy_that_its_settings_do_not_ask_for(short_path: Path) -> None:
    """Without traces no OpenTelemetry, without metrics no Prometheus, and no modules of other commands."""
    env = {"CUSTOMMSG_DATA_DIR": str(short_path / "data"), "CUSTOMMSG_RPC_FILE": str(short_path / "rpc")}
    listen = ("serve", "--insecure", "--listen", "127.0.0.1:0")
    async with processes.server(*listen, env={"PYTHONPROFILEIMPORTTIME": "1", **env}) as program:
        await program.line("gateway listening")
    loaded = {line.rpartition("|")[2].strip() for line in program.lines if line.startswith("import time:")}
    assert "grpc" in loaded
    heavy = {
        *("opentelemetry", "prometheus_client", "rich.console"),  # pyln-client loads cryptography
        *("custommsg_server.access.certs", "custommsg_server.ops.doctor", "custommsg_testing"),
    }
    assert heavy & loaded == set()


async def test_relative_paths_mean_the_folder_where_it_was_started(short_path: Path) -> None:
    """lightningd has another working directory and finds the script; doctor uses the same paths."""
    paths = ("--rpc-file", "node/regtest/lightning-rpc", "--data-dir", "data", "--plugin-dir", "meet")
    by_folder = ("--lightning-dir", "node", "--network", "regtest")
    async with devnode.run(short_path / "node", "regtest") as node, devnode.run(short_path / "peer") as peer:
        await peer.connect(node)
        for options in (paths, by_folder):
            arguments = ("serve", "--insecure", "--listen", "127.0.0.1:0", *options)
            async with processes.server(*arguments, cwd=short_path) as program:
                address = await started(program)
                await program.line("lightningd is attached")
                async with grpc.aio.insecure_channel(address) as channel:
                    stub = custommsg_pb2_grpc.CustomMsgServiceStub(channel)
                    subscription = stub.SubscribeCustomMsgs(pb.SubscribeCustomMsgsRequest())
                    await subscription.initial_metadata()
                    await peer.send(node.id, b"\x9c\x41hi")
                    async with asyncio.timeout(20):
                        async for answer in subscription:
                            if answer.events:
                                break
                    assert [event.message.payload for event in answer.events] == [b"hi"]
                    subscription.cancel()
                doctor = await asyncio.create_subprocess_exec(
                    *(
                        sys.executable,
                        "-m",
                        "custommsg_server",
                        "doctor",
                        "--listen",
                        "127.0.0.1:0",
                        *options,
                    ),
                    cwd=short_path,
                    stdout=asyncio.subprocess.PIPE,
                )
                said = (await doctor.communicate())[0].decode()
                assert doctor.returncode == 0, said
                assert "a running gateway uses it" in said


async def test_a_part_that_dies_ends_the_plugin_too(short_path: Path) -> None:
    """With 70; lightningd logs that its plugin has ended, and continues."""
    dies = "import custommsg_server.node.lightningd.link as m; m.Link._connect_and_watch = lambda *_: 1 / 0"
    run = "import sys; sys.argv = ['custommsg-server', 'plugin']; import custommsg_server.__main__ as c; c.main()"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", f"{dies}\n{run}"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "CUSTOMMSG_LISTEN": "127.0.0.1:0", "CUSTOMMSG_DATA_DIR": str(short_path)},
    )
    assert process.stdout is not None
    assert process.stdin is not None
    lightningd = LightningdEnd(process.stdout, process.stdin)
    await lightningd.ask("getmanifest", {"allow-deprecated-apis": False})
    assert not await lightningd.init()
    async with asyncio.timeout(20):
        assert await process.wait() == 70


@pytest.mark.parametrize(
    ("arguments", "env", "said"),
    [
        (("--listen", "0.0.0.0:9737"), {}, "--insecure"),
        (("--listen", "nowhere"), {}, "host:port"),
        ((), {"CUSTOMMSG_LISTN": "x"}, "CUSTOMMSG_LISTN is not a setting"),
        ((), {"CUSTOMMSG_CALL_TIMEOUT": "0"}, "CUSTOMMSG_CALL_TIMEOUT"),
        (("--config", "/nonexistent.toml"), {}, "/nonexistent.toml"),
    ],
)
async def test_wrong_settings_end_with_2_and_a_word_on_what_to_do(
    arguments: tuple[str, ...], env: dict[str, str], said: str
) -> None:
    """Without a stack trace."""
    async with processes.server("serve", *arguments, env=env) as program:
        assert await program.process.wait() == 2
    printed = "".join(program.lines)
    assert said in printed
    assert "Traceback" not in printed


@pytest.mark.parametrize("is_tls", [False, True])
async def test_a_port_that_is_taken_ends_with_2_and_one_line(
    node: StandIn, tmp_path: Path, is_tls: bool
) -> None:
    """It names the address and what to do; gRPC's own line is not printed."""
    make(tmp_path, ("localhost",), "client")
    tls = ("--tls-cert", str(tmp_path / "server.pem"), "--tls-key", str(tmp_path / "server.key"))
    async with gateway(node.rpc_file) as address:
        taken = ("--rpc-file", str(node.rpc_file), "--data-dir", str(tmp_path), "--listen", address)
        async with processes.server(
            "serve", *taken, *(tls if is_tls else ()), "--log-level", "error"
        ) as program:
            assert await program.process.wait() == 2
    (line,) = program.lines
    assert line.startswith(
        f"custommsg-server: Cannot listen on {address}: it is in use. Stop the program that uses it"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("certs",), "FOLDER is missing. Try: custommsg-server certs --help"),
        (("certs", "x", "--host"), "--host needs a value. Try: custommsg-server certs --help"),
        (("serve", "--bogus"), "Unknown option: --bogus. Try: custommsg-server serve --help"),
        (("doctor", "--bogus"), "Unknown option: --bogus. Try: custommsg-server doctor --help"),
        (("health", "x"), "Unexpected argument: x. Try: custommsg-server health --help"),
        (("try", "--bogus"), "Unknown option: --bogus. Try: custommsg-server try --help"),
        (("devnode",), "--lightning-dir needs a value. Try: custommsg-server devnode --help"),
        (
            ("serve", "--node-window", "x"),
            "--node-window takes a number, not 'x'. Try: custommsg-server serve --help",
        ),
    ],
)
async def test_wrong_usage_ends_with_2_and_one_line(arguments: tuple[str, ...], said: str) -> None:
    """It says what is wrong, and names the help of the command."""
    async with processes.server(*arguments) as program:
        assert await program.process.wait() == 2
    assert program.lines == [f"custommsg-server: {said}\n"]


async def test_a_port_that_is_taken_is_all_that_is_said_of_a_loss(short_path: Path) -> None:
    """Nothing has arrived, so the inbox that could not be opened yet has lost nothing."""
    async with await asyncio.start_server(lambda *_: None, "127.0.0.1", 0) as other:
        address = f"127.0.0.1:{other.sockets[0].getsockname()[1]}"
        options = ("--insecure", "--listen", address, "--lightning-dir", str(short_path / "nowhere"))
        async with processes.server("serve", *options) as program:
            assert await program.process.wait() == 2
    assert address in program.lines[-1]
    assert not any("is lost" in line for line in program.lines)


async def test_what_the_start_has_made_is_left_out_of_garbage_collections(node: StandIn) -> None:
    """Else each full one stops the event loop for 50 ms: some 100,000 objects of modules and classes."""
    tell = "lambda: print('frozen', gc.get_freeze_count(), file=sys.stderr, flush=True)"
    first = f"import atexit, gc, sys; atexit.register({tell})"
    arguments = ("serve", "--insecure", "--listen", "127.0.0.1:0", "--rpc-file", str(node.rpc_file))
    async with processes.server(*arguments, "--no-receive", first=first) as program:
        await program.line("node link up")
        program.process.send_signal(signal.SIGTERM)
        assert int((await program.line("frozen")).split()[1]) > 50_000


async def test_lists_may_have_commas_on_the_command_line(node: StandIn) -> None:
    """As the help says."""
    lists = ("--accept-even-types", "32768,40000", "--dialects", "cln,lnd", "--receive-types", "1-3,5")
    listen = ("--insecure", "--listen", "127.0.0.1:0,[::1]:0", "--rpc-file", str(node.rpc_file))
    async with processes.server("serve", *listen, *lists) as program:
        assert len(json.loads(await program.line("gateway listening"))["addresses"]) == 2

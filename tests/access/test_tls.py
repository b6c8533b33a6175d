"""TLS: handshakes, and certificates that change while the gateway runs."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import stat
from pathlib import Path

import grpc
import pytest
from structlog.testing import capture_logs

from custommsg.v1 import custommsg_pb2 as pb
from custommsg.v1 import custommsg_pb2_grpc
from custommsg_server.access import certs
from custommsg_server.access.tls import TlsError, TlsFiles
from custommsg_server.ops import native_log
from support import processes
from support.every_rpc import Certificates, until_serving
from support.gateways import gateway
from support.keys import node_id
from support.standin import StandIn

REQUEST = pb.SendCustomMsgRequest(message=pb.OutboundMsg(peer_id=node_id(), msg_hex="9c4101"))


def serial(address: str, certificates: Certificates, newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> str:
    """Do a handshake; return the serial number of the server's certificate."""
    context = ssl.create_default_context(cafile=str(certificates.ca_file))
    context.set_alpn_protocols(["h2"])
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    context.minimum_version, context.maximum_version = ssl.TLSVersion.MINIMUM_SUPPORTED, newest
    host, _, port = address.rpartition(":")
    with (
        socket.create_connection((host, int(port)), timeout=5) as raw,
        context.wrap_socket(raw, server_hostname=host) as wrapped,
    ):
        return str((wrapped.getpeercert() or {})["serialNumber"])


async def test_a_certificate_is_replaced_under_load_with_no_failed_call(
    node: StandIn, tmp_path: Path
) -> None:
    """New connections get the new certificate, and calls on old connections continue."""
    certificates = Certificates(tmp_path)
    async with gateway(node.rpc_file, receive=False, **certificates.settings(False)) as address:
        first = await asyncio.to_thread(serial, address, certificates)
        stop, calls = asyncio.Event(), [0] * 9

        async def old_caller(number: int) -> None:
            async with grpc.aio.secure_channel(address, certificates.client("none")) as channel:
                await until_serving(channel)
                while not stop.is_set():
                    await custommsg_pb2_grpc.CustomMsgServiceStub(channel).SendCustomMsg(REQUEST)
                    calls[number] += 1

        async def new_caller(number: int) -> None:
            while not stop.is_set():
                options = (("grpc.use_local_subchannel_pool", 1),)
                credentials = certificates.client("none")
                async with grpc.aio.secure_channel(address, credentials, options) as channel:
                    await custommsg_pb2_grpc.CustomMsgServiceStub(channel).SendCustomMsg(REQUEST)
                    calls[number] += 1

        async with asyncio.TaskGroup() as callers:
            for number in range(8):
                callers.create_task(old_caller(number))
            callers.create_task(new_caller(8))
            seen = {first}
            for renewed in range(1, 6):
                reached = [count + 5 for count in calls]
                while any(count < least for count, least in zip(calls, reached, strict=True)):
                    await asyncio.sleep(0)
                certificates.renew()
                seen.add(await asyncio.to_thread(serial, address, certificates))
                assert len(seen) == renewed + 1
            stop.set()


async def test_a_broken_certificate_keeps_the_old_and_says_so(node: StandIn, tmp_path: Path) -> None:
    """Whatever is wrong with it; the next valid one is used."""
    certificates = Certificates(tmp_path)
    async with gateway(node.rpc_file, receive=False, **certificates.settings(False)) as address:
        first = await asyncio.to_thread(serial, address, certificates)
        other = Certificates(_folder(tmp_path / "other"))
        for content, said in (
            (b"no certificate", "does not contain a PEM certificate"),
            (other.cert_file.read_bytes(), "does not belong to the certificate"),
            (None, "cannot read"),
        ):
            if content is None:
                certificates.cert_file.unlink()
            else:
                certificates.cert_file.write_bytes(content)
            with capture_logs() as lines:
                assert await asyncio.to_thread(serial, address, certificates) == first
                assert await asyncio.to_thread(serial, address, certificates) == first
            [line] = [line for line in lines if "cannot be used" in line["event"]]
            assert said in line["why"]
        certificates.renew()
        assert await asyncio.to_thread(serial, address, certificates) != first


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


async def test_nothing_older_than_tls_1_2_is_spoken(node: StandIn, certificates: Certificates) -> None:
    """gRPC's core refuses it."""
    async with gateway(node.rpc_file, receive=False, **certificates.settings(False)) as address:
        assert await asyncio.to_thread(serial, address, certificates, ssl.TLSVersion.TLSv1_2)
        with (
            pytest.warns(DeprecationWarning, match="TLSv1_1"),
            pytest.raises((ssl.SSLError, ConnectionError)),
        ):
            await asyncio.to_thread(serial, address, certificates, ssl.TLSVersion.TLSv1_1)


async def test_a_failed_handshake_is_logged_with_its_reason(node: StandIn, tmp_path: Path) -> None:
    """In the real process, as one line of its log, without raw lines of gRPC's core."""
    certificates = Certificates(tmp_path)
    files = ["--tls-cert", certificates.cert_file, "--tls-key", certificates.key_file]
    arguments = (
        "--listen",
        "127.0.0.1:0",
        "--rpc-file",
        node.rpc_file,
        "--tls-client-ca",
        certificates.ca_file,
    )
    async with processes.server("serve", *map(str, (*arguments, *files)), "--no-receive") as program:
        address = json.loads(await program.line("gateway listening"))["addresses"][0]
        for kind, reason in (
            ("none", "PEER_DID_NOT_RETURN_A_CERTIFICATE"),
            ("expired", "certificate has expired"),
            ("wrong", "CERTIFICATE_VERIFY_FAILED"),
        ):
            async with grpc.aio.secure_channel(address, certificates.client(kind)) as channel:
                with pytest.raises(grpc.aio.AioRpcError):
                    await custommsg_pb2_grpc.CustomMsgServiceStub(channel).GetInfo(pb.GetInfoRequest())
            line = json.loads(await program.line(reason))
            assert (line["event"], line["level"]) == ("TLS handshake failed", "warning")
        assert all(json.loads(line) for line in program.lines)


@pytest.mark.parametrize(
    ("line", "event"),
    [
        ("I1123 16:25:35.068657   29332 a.cc:2563] Handshake failed with error x", "TLS handshake failed"),
        ("E1123 16:25:35.068657   29332 chttp2.cc:1] trouble", "gRPC's core"),
    ],
)
def test_lines_of_the_core_become_lines_of_ours(line: str, event: str) -> None:
    """Other lines are not changed."""
    with capture_logs() as lines:
        assert native_log.tell(line)
        assert not native_log.tell("Fatal Python error: Segmentation fault")
    assert [line["event"] for line in lines] == [event]


def test_certs_makes_what_serves_and_what_calls(tmp_path: Path) -> None:
    """Only the owner can read the keys, and nothing is overwritten."""
    paths = certs.make(tmp_path / "new", ["localhost", "127.0.0.1"], "shop")
    assert {
        path.name: stat.S_IMODE(path.stat().st_mode) & 0o077 for path in paths if path.suffix == ".key"
    } == {
        "ca.key": 0,
        "server.key": 0,
        "client.key": 0,
    }
    TlsFiles(paths[2], paths[3], paths[0]).read()
    before = [path.read_bytes() for path in paths]
    with pytest.raises(certs.CertsError, match="not overwritten"):
        certs.make(tmp_path / "new", ["localhost"], "shop")
    assert [path.read_bytes() for path in paths] == before
    with pytest.raises(TlsError, match="does not belong to"):
        TlsFiles(paths[2], paths[5]).read()


@pytest.mark.parametrize("name", ["localhost", "cln"])
async def test_certs_of_ours_let_a_client_in(node: StandIn, tmp_path: Path, name: str) -> None:
    """From `certs` to a call known by the client's name; also under the name that cln-grpc's clients require."""
    ca, _, cert, key, client, client_key = certs.make(tmp_path / "c", ["localhost", "127.0.0.1"], "shop")
    settings = {"tls_cert": cert, "tls_key": key, "tls_client_ca": ca, "require": "client-cert"}
    credentials = grpc.ssl_channel_credentials(ca.read_bytes(), client_key.read_bytes(), client.read_bytes())
    async with (
        gateway(node.rpc_file, receive=False, insecure=False, **settings) as address,
        grpc.aio.secure_channel(address, credentials, [("grpc.ssl_target_name_override", name)]) as channel,
    ):
        await until_serving(channel)
        assert (await custommsg_pb2_grpc.CustomMsgServiceStub(channel).SendCustomMsg(REQUEST)).status

"""The pod of the manifests, as it runs: two processes with the users, groups, files and environment that these say.

lightningd's place is taken by the embedded node. Where `tools/build_image.sh` has built the image, the gateway is
the one in it.
"""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc

from custommsg.v1 import custommsg_pb2 as pb
from custommsg.v1 import custommsg_pb2_grpc
from custommsg_testing import devnode
from support import containers
from support.containers import Running
from support.pods import Pod, gateway_image, lightningd_image
from support.tools import missing

SERVING = health_pb2.HealthCheckResponse.SERVING


@dataclass(frozen=True)
class RunningPod:
    """A pod that runs, a Lightning peer of it, and where the gateway listens."""

    pod: Pod
    gateway: Running
    lightningd: Running
    node_id: bytes
    peer: devnode.DevNode
    address: str
    credentials: grpc.ChannelCredentials | None

    def channel(self) -> grpc.aio.Channel:
        """Return a caller's channel, with the credentials that the overlay requires."""
        if self.credentials is None:
            return grpc.aio.insecure_channel(self.address)
        name = [("grpc.ssl_target_name_override", "custommsg")]
        return grpc.aio.secure_channel(self.address, self.credentials, name)

    async def is_well(self, probe: dict[str, Any]) -> bool:
        """Probe the gateway as kubelet does."""
        if "exec" in probe:
            return (await self.gateway.run(*probe["exec"]["command"]))[0] == 0
        async with grpc.aio.insecure_channel(self.address) as channel:
            request = health_pb2.HealthCheckRequest(service=probe["grpc"].get("service", ""))
            answer = await health_pb2_grpc.HealthStub(channel).Check(request)
            return bool(answer.status == SERVING)


class Secrets:
    """The Secrets that production needs, and the credentials of a caller that they admit."""

    def __init__(self) -> None:
        authority = trustme.CA()
        server, client = authority.issue_cert("custommsg"), authority.issue_cert("caller@custommsg")
        ca = authority.cert_pem.bytes()
        chain, key = server.cert_chain_pems[0].bytes(), server.private_key_pem.bytes()
        self.secrets = {
            "custommsg-tls": {"tls.crt": chain, "tls.key": key, "ca.crt": ca},
            "lightningd-conf": {"config": b""},
        }
        self.caller = grpc.ssl_channel_credentials(
            ca, client.private_key_pem.bytes(), client.cert_chain_pems[0].bytes()
        )


@pytest.fixture
async def running(
    overlay: str, manifests: list[dict[str, Any]], short_path: Path
) -> AsyncIterator[RunningPod]:
    """Run the pod in kubelet's order: the gateway is up before lightningd starts."""
    if why := containers.why_not():
        missing(why)
    (stateful_set,) = (one for one in manifests if one["kind"] == "StatefulSet")
    short_path.chmod(0o755)  # other users must be able to enter it
    folders = [short_path / name for name in ("volumes", "gateway", "lightningd", "peer")]
    for folder in folders:
        folder.mkdir()
    secrets = Secrets()
    pod = Pod.make(stateful_set, secrets.secrets, folders[0])
    network = "regtest" if overlay == "laptop" else "bitcoin"
    credentials = None if overlay == "laptop" else secrets.caller
    async with containers.running(pod.run_as("custommsg", gateway_image()), folders[1]) as gateway:
        address = json.loads(await gateway.line("gateway listening"))["addresses"][0]
        node = containers.running(pod.run_as("lightningd", lightningd_image()), folders[2])
        async with node as lightningd, devnode.run(folders[3], network) as peer:
            node_id = await peer.connect(await lightningd.line("@127.0.0.1:"))
            await gateway.line("lightningd is attached")
            yield RunningPod(pod, gateway, lightningd, node_id, peer, address, credentials)


async def test_messages_pass_both_ways(running: RunningPod) -> None:
    """A peer gets what a caller sends, a subscriber what the peer sends."""
    async with running.channel() as channel:
        stub = custommsg_pb2_grpc.CustomMsgServiceStub(channel)
        subscription = stub.SubscribeCustomMsgs(pb.SubscribeCustomMsgsRequest())
        await subscription.initial_metadata()
        await stub.SendCustomMsg(
            pb.SendCustomMsgRequest(
                message=pb.OutboundMsg(peer_id=running.peer.id, msg_hex="9c41" + b"hi".hex())
            )
        )
        assert (await running.peer.received.next()).message == b"\x9c\x41hi"
        await running.peer.send(running.node_id, b"\x9c\x41back")
        async with asyncio.timeout(20):
            async for answer in subscription:
                if answer.events:
                    break
        assert [event.message.payload for event in answer.events] == [b"back"]


async def test_the_probes_succeed(running: RunningPod) -> None:
    """All three, with and without TLS. Only readiness depends on the node."""
    said = running.pod.container("custommsg")
    probes = [said[f"{name}Probe"] for name in ("startup", "readiness", "liveness")]
    assert [await running.is_well(probe) for probe in probes] == [True, True, True]
    running.lightningd.kill()
    async with asyncio.timeout(30):
        while await running.is_well(said["readinessProbe"]):
            pass
    assert [await running.is_well(probe) for probe in probes] == [True, False, True]


async def test_the_containers_share_sockets_and_nothing_else(running: RunningPod) -> None:
    """The shared folder is open to their group alone, and neither sees the other's files."""
    meet = running.pod.volumes["meet"]
    for name, user in (("lightning-rpc", 1000), ("plugin.sock", 9737)):
        found = (meet / name).stat()
        assert (found.st_uid, found.st_gid) == (user, running.pod.group)
        assert stat.filemode(found.st_mode) == "srw-rw----"
    script = (meet / "custommsg-attach").stat()
    assert (script.st_uid, script.st_gid) == (9737, running.pod.group)
    assert stat.filemode(script.st_mode) == "-rwxr-x---"
    assert (await running.gateway.run("ls", "/var/lib/lightning"))[0] != 0
    assert (await running.lightningd.run("ls", "/var/lib/custommsg"))[0] != 0


async def test_the_gateway_can_write_to_its_volumes_only(running: RunningPod) -> None:
    """It has no capabilities, cannot gain any, and can write nowhere else."""
    status, said = await running.gateway.run("cat", "/proc/1/status")
    fields = dict(line.split(":\t", 1) for line in said.splitlines())
    assert status == 0
    assert fields["Uid"].split() == ["9737"] * 4
    assert fields["NoNewPrivs"] == "1"
    assert {int(fields[name], 16) for name in ("CapPrm", "CapEff", "CapBnd")} == {0}
    for folder in ("/", "/tmp", "/opt", "/usr/bin", "/etc"):
        assert (await running.gateway.run("touch", f"{folder}/x"))[0] != 0
    assert (await running.gateway.run("test", "-s", "/var/lib/custommsg/inbox.sqlite3"))[0] == 0


async def test_lightningd_stays_until_the_gateway_has_drained(running: RunningPod) -> None:
    """kubelet starts both preStop hooks at the same time: the gateway ends with 0, then lightningd may stop."""
    waiting = asyncio.create_task(running.lightningd.run(*running.pod.pre_stop("lightningd")))
    async with running.channel() as channel:
        stub = custommsg_pb2_grpc.CustomMsgServiceStub(channel)
        await stub.GetInfo(pb.GetInfoRequest())
        assert not waiting.done()
        await running.gateway.run(*running.pod.pre_stop("custommsg"))
        async with asyncio.timeout(30):
            assert await running.gateway.ended() == 0
            assert (await waiting)[0] == 0

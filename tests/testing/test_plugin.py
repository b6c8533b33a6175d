"""The fixtures that pytest gets from custommsg-testing, in projects that know nothing of this repository."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap

import pytest

from support.distributions import PROJECT

pytest_plugins = ["pytester"]

NODES = """
def test_one_node(embedded_node):
    assert len(embedded_node.id) == 33
    assert embedded_node.rpc_file.is_socket()

def test_two_connected_nodes(node_pair):
    one, other = node_pair
    one.send(other, 40001, b"hello")
    received = other.receive()
    assert (received.peer_id, received.type, received.payload) == (one.id, 40001, b"hello")
    other.send(one.id, 40003)
    assert one.receive().message == bytes.fromhex("9c43")

def test_nodes_disconnect_and_connect_again(node_pair):
    one, other = node_pair
    one.disconnect(other)
    one.connect(f"{other.id.hex()}@{other.address}")
    other.disconnect(one.id)
    one.stop()

def test_a_node_that_receives_nothing(embedded_node):
    import pytest
    with pytest.raises(TimeoutError):
        embedded_node.receive(timeout=0.01)
"""

GATEWAY = """
from custommsg import aio, sync

def test_the_blocking_client(gateway, capsys):
    with sync.connect(gateway.address) as client:
        client.send(gateway.peer.id, type=40001, payload=b"hello")
        assert gateway.peer.receive().payload == b"hello"
        gateway.peer.send(gateway.node, 40001, b"back")
        for message in client.subscribe(types=[40001], from_beginning=True):
            assert (message.peer_id, message.payload) == (gateway.peer.id, b"back")
            break
    assert capsys.readouterr() == ("", "")

async def send_and_receive(gateway):
    async with aio.connect(gateway.address) as client:
        subscription = client.subscribe(types=[40001])
        await subscription.start()
        gateway.peer.send(gateway.node, 40001, b"in")
        async for message in subscription:
            assert message.payload == b"in"
            break
        await subscription.close()

async def test_the_asyncio_client(gateway):
    await send_and_receive(gateway)

async def test_the_asyncio_client_in_another_event_loop(gateway):
    await send_and_receive(gateway)
"""

DEADLY = """
from pyln.client import LightningRpc, RpcError

def test_it_fails_at_its_end(node_pair):
    one, other = node_pair
    try:
        LightningRpc(str(one.rpc_file)).sendcustommsg(other.id.hex(), "")
    except RpcError:
        pass

def test_the_next_one_does_not(embedded_node):
    pass
"""


def run(pytester: pytest.Pytester, source: str, *options: str) -> pytest.RunResult:
    """Run a project's tests in a process of its own, where warnings are errors."""
    pytester.makepyfile(source)
    pytester.makeini("""
        [pytest]
        asyncio_mode = auto
        asyncio_default_fixture_loop_scope = function
        filterwarnings = error
    """)
    return pytester.runpytest_subprocess(*options, timeout=60)


def test_a_project_gets_nodes(pytester: pytest.Pytester) -> None:
    """One, or two that are connected, in tests that block."""
    run(pytester, NODES).assert_outcomes(passed=4)


def test_a_project_gets_a_gateway(pytester: pytest.Pytester) -> None:
    """For the blocking and for the asyncio client, in several event loops, and it prints nothing."""
    run(pytester, GATEWAY).assert_outcomes(passed=3)


def test_a_test_fails_if_lightningd_would_not_have_survived_it(pytester: pytest.Pytester) -> None:
    """At its end; the next test has another node."""
    result = run(pytester, DEADLY)
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(
        ["*WouldHaveDiedError: real lightningd would have crashed here: sendcustommsg*"]
    )


def test_tests_that_run_at_the_same_time_have_their_own_gateways(pytester: pytest.Pytester) -> None:
    """No port and no file is shared."""
    pytester.makepyfile(test_other=GATEWAY, test_third=NODES)
    run(pytester, GATEWAY, "-n", "2").assert_outcomes(passed=10)


def test_the_fixtures_describe_themselves(pytester: pytest.Pytester) -> None:
    """`pytest --fixtures` tells what each is for."""
    result = run(pytester, "", "--fixtures")
    for line in ("embedded_node -- *", "node_pair -- *", "gateway -- *"):
        result.stdout.fnmatch_lines([line])


def test_the_readme_holds(pytester: pytest.Pytester) -> None:
    """Its tests pass, and so does its program."""
    tests, program = re.findall(
        r"```python\n(.*?)```", (PROJECT / "testing/README.md").read_text(), re.DOTALL
    )
    imports, body = program.split("\n\n", 1)
    check = "assert received.payload == b'hello'"
    source = f"{imports}\n\nasync def test_program():\n{textwrap.indent(body, '    ')}        {check}\n"
    pytester.makepyfile(test_program=source)
    run(pytester, tests).assert_outcomes(passed=3)


def test_a_project_that_does_not_use_the_fixtures_pays_nothing() -> None:
    """pytest loads the plugin wherever it is installed, so that this must bring nothing but pytest."""
    program = (
        "import sys, pytest; before = set(sys.modules); import custommsg_testing.pytest_plugin;"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout.split() == ["custommsg_testing", "custommsg_testing.pytest_plugin"]

"""The doctor finds each of many prepared mistakes, and says what to do."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest

from custommsg_server.inbox.sqlite.store import SqliteStore
from custommsg_server.ops.doctor import examine as examine_module
from custommsg_server.ops.doctor.examine import examine
from custommsg_server.ops.doctor.finding import Finding, is_well
from support.gateways import gateway, settings
from support.inboxes import arrival
from support.standin import StandIn

Mistake = Callable[[Path], dict[str, Any]]
"""Makes something wrong in a folder; returns the settings that lead there."""


def no_socket(folder: Path) -> dict[str, Any]:
    return {"rpc_file": folder / "missing"}


def no_node(folder: Path) -> dict[str, Any]:
    return {"rpc_file": folder / "bitcoin" / "lightning-rpc"}


def socket_left_behind(folder: Path) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(folder / "left"))
    return {"rpc_file": folder / "left"}


def no_socket_but_a_file(folder: Path) -> dict[str, Any]:
    (folder / "file").touch()
    return {"rpc_file": folder / "file"}


def address_of_another_machine(folder: Path) -> dict[str, Any]:
    return {"listen": ("192.0.2.1:9737",), "insecure": True}


def metrics_on_an_address_of_another_machine(folder: Path) -> dict[str, Any]:
    return {"metrics_listen": "192.0.2.1:9750"}


def socket_path_too_long(folder: Path) -> dict[str, Any]:
    return {"listen": (f"unix:{folder}/{'x' * 120}",)}


def plugin_path_too_long(folder: Path) -> dict[str, Any]:
    return {"plugin_dir": folder / ("x" * 120)}


def plugin_folder_that_is_a_file(folder: Path) -> dict[str, Any]:
    (folder / "plain").touch()
    return {"plugin_dir": folder / "plain"}


def script_that_cannot_be_run(folder: Path) -> dict[str, Any]:
    (folder / "custommsg-attach").write_text("#!/bin/sh\n")
    (folder / "custommsg-attach").chmod(0o644)
    return {"plugin_dir": folder}


def inbox_that_is_none(folder: Path) -> dict[str, Any]:
    (folder / "inbox.sqlite3").write_bytes(b"no database at all" * 100)
    return {"data_dir": folder}


def inbox_with_damage_in_the_middle(folder: Path) -> dict[str, Any]:
    store = SqliteStore(folder / "inbox.sqlite3")
    store.append([arrival(number, size=1000) for number in range(1000)])
    store.close()
    with (folder / "inbox.sqlite3").open("r+b") as file:
        file.seek(400_000)
        file.write(b"\xff" * 8192)
    return {"data_dir": folder}


def inbox_of_a_newer_gateway(folder: Path) -> dict[str, Any]:
    SqliteStore(folder / "inbox.sqlite3").close()
    connection = apsw.Connection(str(folder / "inbox.sqlite3"))
    connection.pragma("user_version", 99)
    connection.close()
    return {"data_dir": folder}


def data_folder_that_is_a_file(folder: Path) -> dict[str, Any]:
    (folder / "file").touch()
    return {"data_dir": folder / "file"}


@pytest.mark.parametrize(
    ("mistake", "check", "said"),
    [
        (no_socket, "node", "does not exist"),
        (no_node, "inbox", "waits for"),
        (no_node, "plugin script", "waits for"),
        (socket_left_behind, "node", "leftover"),
        (no_socket_but_a_file, "node", "is not a socket"),
        (address_of_another_machine, "listen", "not an address of this machine"),
        (metrics_on_an_address_of_another_machine, "metrics_listen", "not an address of this machine"),
        (socket_path_too_long, "listen", "107 at most"),
        (plugin_path_too_long, "plugin script", "107 at most"),
        (plugin_folder_that_is_a_file, "plugin script", "cannot be written"),
        (script_that_cannot_be_run, "plugin script", "not executable"),
        (inbox_that_is_none, "inbox", "not an inbox"),
        (inbox_with_damage_in_the_middle, "inbox", "it is damaged"),
        (inbox_of_a_newer_gateway, "inbox", "version is 99"),
        (data_folder_that_is_a_file, "inbox", "cannot be written"),
    ],
)
async def test_a_prepared_mistake_is_found_with_what_to_do(
    mistake: Mistake, check: str, said: str, node: StandIn, short_path: Path
) -> None:
    """One line of the report names it; the other checks still run."""
    folder = short_path / "wrong"
    folder.mkdir()
    wrong = mistake(folder)
    findings = await examine(settings(wrong.pop("rpc_file", node.rpc_file), **wrong))
    [found] = [finding for finding in findings if finding.level == "fix" and finding.check == check]
    assert said in found.said
    assert found.advice
    assert len(findings) > 4


async def test_all_is_well_beside_a_node_that_answers(node: StandIn) -> None:
    """Before the first start, without inbox and script; the checks create no files."""
    findings = await examine(settings(node.rpc_file))
    assert is_well(findings), findings
    assert {path.name for path in node.rpc_file.parent.iterdir()} == {"lightning-rpc"}


async def test_a_gateway_that_runs_is_no_mistake_but_another_program_is(node: StandIn) -> None:
    """For an address in use, it matters who uses it."""
    async with gateway(node.rpc_file) as address:
        ours = await examine(settings(node.rpc_file, listen=(address,)))
        assert is_well(ours), ours
        assert "the running gateway" in _of(ours, "listen").said
        elsewhere = node.rpc_file.parent / "elsewhere"
        other = await examine(settings(node.rpc_file, listen=(address,), data_dir=elsewhere))
    assert "in use" in _of(other, "listen").said


async def test_a_socket_that_does_not_answer_is_found(
    short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within a limited time."""
    monkeypatch.setattr(examine_module, "_ANSWER_TIME", 0.2)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(short_path / "silent"))
        silent.listen()
        async with asyncio.timeout(10):
            findings = await examine(settings(short_path / "silent"))
    assert "does not answer getinfo" in _of(findings, "node").said


async def test_traces_without_their_extra_are_found(node: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """For both ways to switch them on."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317")
    monkeypatch.setattr(examine_module, "_installed", lambda module: False)
    findings = await examine(settings(node.rpc_file))
    assert "custommsg-server[otel]" in _of(findings, "traces").advice


async def test_a_check_that_breaks_hides_none_of_the_others(
    node: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a stack trace."""

    def broken(path: Path) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(examine_module, "look_at", broken)
    findings = await examine(settings(node.rpc_file))
    assert "ZeroDivisionError" in _of(findings, "inside").said
    assert _of(findings, "certificates").level == "ok"


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("--rpc-file", "/nonexistent/lightning-rpc"), 1, "does not exist"),
        (("--call-timeout", "0"), 1, "--call-timeout"),
        (("--listen", "0.0.0.0:1"), 1, "--insecure"),
    ],
)
async def test_the_exit_status_says_whether_all_is_well(
    arguments: tuple[str, ...], status: int, said: str, tmp_path: Path
) -> None:
    """As JSON, a list of findings; as text, columns; never a stack trace."""
    for form in ((), ("--json",)):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "custommsg_server", "doctor", "--data-dir", str(tmp_path)),
            *(*arguments, *form),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ},
        )
        out, err = await process.communicate()
        assert process.returncode == status, err
        assert b"Traceback" not in out + err
        assert said in out.decode()
        if form:
            assert {"check", "level", "said", "advice"} == set(json.loads(out)[0])


def _of(findings: list[Finding], check: str) -> Finding:
    [found] = [finding for finding in findings if finding.check == check]
    return found

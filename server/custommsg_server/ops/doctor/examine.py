"""Runs all checks, one after the other."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

from custommsg_server.inbox.port import InboxError
from custommsg_server.inbox.sqlite.inspect import Seen, look_at
from custommsg_server.node.lightningd.ask import AskError, ask
from custommsg_server.node.lightningd.attach import Paths
from custommsg_server.ops.doctor import certificates
from custommsg_server.ops.doctor.finding import Finding
from custommsg_server.ops.doctor.places import check_address, check_plugin
from custommsg_server.outbox.port import OutboxError
from custommsg_server.outbox.sqlite.store import look_at as look_outbox
from custommsg_server.settings import Settings

_ANSWER_TIME: Final = 5.0
"""Seconds that lightningd may take to answer."""
_TRIED: Final = (24, 8)
"""The oldest release that should work with all features."""
_LITTLE: Final = 100_000_000
"""Bytes: with less free space on the inbox's disk, the user has to act."""


async def examine(settings: Settings) -> list[Finding]:
    """Check a machine and its lightningd for a gateway with these settings; nothing is changed."""
    findings = [Finding("settings", "ok", "all are valid")]
    for checks in (_node, _inside, _certificates):
        try:
            findings += [finding async for finding in checks(settings)]
        except Exception as error:  # a bug in one check must not hide the results of the others
            name = checks.__name__.strip("_")
            said = f"the check itself failed: {type(error).__name__}"
            findings.append(Finding(name, "fix", said, "Please report this, with the lines around it."))
    return findings


async def _node(settings: Settings) -> AsyncIterator[Finding]:
    try:
        info = await ask(settings.socket_path, _ANSWER_TIME)
    except AskError as error:
        yield Finding("node", "fix", error.what, error.advice)
        return
    said = f"{settings.socket_path} answers: {info.alias or info.node_id.hex()[:16]}"
    yield Finding("node", "ok", f"{said}, {info.version}, on {info.network}")
    found = re.match(r"v?(\d+)\.(\d+)", info.version)
    if found and (int(found[1]), int(found[2])) < _TRIED:
        advice = "Upgrade lightningd if something does not work. Before v23.08 it cannot check runes."
        yield Finding("node version", "note", f"{info.version} was not tested", advice)


async def _inside(settings: Settings) -> AsyncIterator[Finding]:
    seen = Seen(exists=False, in_use=False, free=0)
    if _waits(settings, settings.data_dir):
        yield _waiting(settings, "inbox", "data_dir")
    else:
        try:
            seen = look_at(settings.inbox_path)
        except InboxError as error:
            said, _, advice = str(error).partition("; ")
            yield Finding("inbox", "fix", said, advice)
        else:
            for finding in _inbox(settings, seen):
                yield finding
        yield _outbox(settings)
    for address in settings.addresses:
        yield check_address("listen", address, seen.in_use)
    if settings.metrics_address:
        yield check_address("metrics_listen", settings.metrics_address, seen.in_use)
    if settings.receive and _waits(settings, settings.plugin_dir or settings.data_dir):
        yield _waiting(settings, "plugin script", "plugin_dir")
    elif settings.receive:
        paths = Paths.within(settings.plugin_path, settings.plugin_dir_for_node)
        for finding in check_plugin(paths, other_view=settings.plugin_dir_for_node is not None):
            yield finding
    asked = settings.otel_endpoint or os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    if asked and not _installed("opentelemetry.sdk"):
        said = "traces are switched on, but the extra otel is not installed"
        yield Finding("traces", "fix", said, "pip install 'custommsg-server[otel]', or unset otel_endpoint.")


def _waits(settings: Settings, folder: Path | None) -> bool:
    """Return whether a folder, or the default if None, waits for lightningd's folder, which does not exist."""
    return folder is None and not settings.socket_path.parent.is_dir()


def _waiting(settings: Settings, check: str, setting: str) -> Finding:
    said = f"the gateway waits for {settings.socket_path.parent}, which does not exist"
    advice = (
        f"Start lightningd, which creates it; check rpc_file, lightning_dir and network; or set {setting}."
    )
    return Finding(check, "fix", said, advice)


def _outbox(settings: Settings) -> Finding:
    path = settings.outbox_path
    try:
        counts = look_outbox(path)
    except OutboxError as error:
        said, _, advice = str(error).partition("; ")
        return Finding("outbox", "fix", said, advice or "See docs/operations.md, The outbox fails.")
    if counts is None:
        return Finding("outbox", "ok", f"{path} does not exist yet; it is made at the first start")
    return Finding("outbox", "ok", f"{path} exists; {counts.waiting:,} messages wait in it")


def _inbox(settings: Settings, seen: Seen) -> Iterator[Finding]:
    there = "can be read and written" if seen.exists else "will be created"
    used = "; a running gateway uses it" if seen.in_use else ""
    yield Finding("inbox", "ok", f"{settings.inbox_path} {there}{used}")
    wanted = settings.inbox_max_mb * 1_000_000
    free = f"{seen.free / 1e9:,.1f} GB are free on the inbox's disk"
    if seen.free < _LITTLE:
        yield Finding("disk", "fix", free, "Free some space, or set a lower inbox_max_mb or inbox_max_days.")
    elif seen.free < wanted and not seen.exists:
        yield Finding(
            "disk", "note", f"{free}; the inbox may take {wanted / 1e9:,.1f}", "Lower inbox_max_mb."
        )
    else:
        yield Finding("disk", "ok", free)


async def _certificates(settings: Settings) -> AsyncIterator[Finding]:
    for finding in certificates.check(settings.tls_cert, settings.tls_key, settings.tls_client_ca):
        yield finding


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False

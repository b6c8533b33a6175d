"""The error table: in code, in the contract, and on the wire."""

from __future__ import annotations

import re
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2

from custommsg.v1 import custommsg_pb2 as pb
from custommsg_server.api.status import CODES, code_of, status_of
from custommsg_server.domain.errors import Reason, RelayError

PROTO = Path(__file__).parents[2] / "proto/custommsg/v1/custommsg.proto"


def documented() -> set[tuple[str, str]]:
    """Return the reasons of the contract's enum, each with the codes that its comment names."""
    found = set()
    for comment, name in re.findall(
        r"((?:^ *//.*\n)+) *REASON_(\w+) = \d+;", PROTO.read_text(), re.MULTILINE
    ):
        codes = {code.name for code in grpc.StatusCode} & set(re.findall(r"\b[A-Z_]{4,}\b", comment))
        found |= {(name, code) for code in codes}
    return found


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_a_code_and_a_value_in_the_contract(reason: Reason) -> None:
    """Neither has a missing reason."""
    assert (reason.name, CODES[reason].name) in documented()
    assert f"REASON_{reason.name}" in set(pb.Reason.keys())


def test_the_contract_documents_nothing_else() -> None:
    """A reason that was removed from the code is removed from the contract."""
    rows = {(reason.name, code.name) for reason, code in CODES.items()}
    assert documented() - rows == {("OUTCOME_UNKNOWN", "DEADLINE_EXCEEDED")}
    assert len(pb.Reason.keys()) == len(Reason) + 1


@pytest.mark.parametrize("reason", Reason)
def test_every_error_carries_its_details(reason: Reason) -> None:
    """ErrorInfo always, BadRequest for an invalid field, RetryInfo if a retry is safe."""
    error = RelayError(reason, "why", field="msg", metadata={"k": "v"}, retry_after=1.5)
    status = status_of(error)
    assert (status.code, status.message) == (CODES[reason].value[0], "why")
    info, *more = status.details
    error_info = error_details_pb2.ErrorInfo()
    assert info.Unpack(error_info)
    assert (error_info.reason, error_info.domain, dict(error_info.metadata)) == (
        reason.name,
        "custommsg",
        {"k": "v"},
    )
    kinds = {detail.type_url.rpartition(".")[2] for detail in more}
    invalid = CODES[reason] is grpc.StatusCode.INVALID_ARGUMENT
    assert kinds == ({"BadRequest", "RetryInfo"} if invalid else {"RetryInfo"})


def test_an_outcome_that_the_deadline_hid_is_deadline_exceeded() -> None:
    """The code says that the deadline passed, the reason that the message may have been sent."""
    error = RelayError(Reason.OUTCOME_UNKNOWN, "why", expired=True)
    assert code_of(error) is grpc.StatusCode.DEADLINE_EXCEEDED

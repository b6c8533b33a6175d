"""The version of the tables in a file, and their migration to the newest one."""

from __future__ import annotations

from collections.abc import Sequence

import apsw


class NewerVersionError(Exception):
    """A newer gateway has written the file."""


def version_of(connection: apsw.Connection) -> int:
    """Return the version of the tables in a file; 0 if there are no tables yet."""
    version = connection.pragma("user_version")
    assert isinstance(version, int)
    return version


def check_version(version: int, known: int) -> None:
    """Refuse a file of a newer gateway. Raises NewerVersionError: it is newer."""
    if version > known:
        raise NewerVersionError(
            f"its version is {version}, and this gateway supports versions up to {known}; run the newer gateway again"
        )


def migrate(connection: apsw.Connection, steps: Sequence[str]) -> None:
    """Migrate the tables to the newest version, one step and one transaction at a time.

    Args:
        connection: to the file.
        steps: the SQL of the migration from version n to n + 1.

    Raises:
        NewerVersionError: the file is of a newer gateway.
        apsw.Error: a step failed; the file keeps the version it had.
    """
    version = version_of(connection)
    check_version(version, len(steps))
    for step, statements in enumerate(steps[version:], version + 1):
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.execute(statements)
            connection.execute(f"PRAGMA user_version = {step}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

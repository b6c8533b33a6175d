"""The benchmark of narrow subscribers works, and they read what they want."""

from __future__ import annotations

from benchmarks.inbox import narrow


async def test_narrow_subscribers_read_what_they_want() -> None:
    """On a small inbox: their own rows, and not those of others."""
    _, readings = await narrow.measure(20_000, 20)
    by_case = {reading.case: reading for reading in readings}
    everything = by_case["everything"]
    assert everything.events == everything.rows == 20_000
    for case in ("1 type of 1,000", "10 types", "a range of 100 types", "100 peers"):
        assert 0 < by_case[case].events == by_case[case].rows < 4000

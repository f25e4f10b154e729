"""The bench of the link measures what it says, in small."""

from __future__ import annotations

import pytest
from rich.console import Console

from appliance.evaluation.link_bench import bench, show


@pytest.mark.slow
def test_alerts_are_acknowledged_and_a_list_is_pushed() -> None:
    result = bench(nodes=[2], push_nodes=2, templates=300, total=64)
    assert [(row.nodes, row.per_report) for row in result.alerts] == [(2, 1), (2, 32)]
    for row in result.alerts:
        assert row.per_s > 0
        assert 0 < row.p50_ms <= row.p99_ms
    assert result.push is not None
    assert 0 < result.push.first_s <= result.push.last_s
    console = Console(record=True, width=120)
    show(result, console)
    assert "300 templates" in console.export_text()

"""Two controllers at one PostgreSQL: either may answer, each alert is kept once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.controller.cli import main
from appliance.link import credentials
from appliance.link.nng import NngLink
from appliance.wire import Offer
from tests.contracts.postgres import postgres, programs
from tests.path.fleet_hands import Node, Serving, write_list


@pytest.fixture
def database() -> Iterator[str]:
    found = programs()
    if found is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    with postgres(found) as url:
        yield url


@pytest.mark.slow
def test_a_node_goes_over_to_the_other_controller(
    database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet = tmp_path / "fleet"
    assert main(["init", str(fleet), "--name", "harbour", "--store", database]) == 0
    here = ["--fleet", str(fleet)]
    assert main(["node", "add", "cam-1", "--out", str(tmp_path / "cam-1"), *here]) == 0
    assert not (fleet / "fleet.db").exists()
    with Serving(fleet) as first, Serving(fleet) as second:
        node = Node(tmp_path / "cam-1", first)
        node.greet()
        row, later = node.row(1), node.row(2)
        node.report(row)
        first.kill()
        node.link.close()
        tls = credentials.load(Path(node.config.link.state), "controller")
        node.link = NngLink(second.url, tls=tls, redial_s=(0.05, 0.2))
        second.told("listening")
        node.greet()
        node.report(row, later)
        second.told("duplicate", sequence=1)
        second.told("alert", sequence=2)
        path = write_list(tmp_path / "list", fleet="harbour")
        key = fleet / "authorities" / "authority.key"
        for words in (
            ("list", "sign", path, "--key", key),
            ("deploy", "start", "--list", path, "--nodes", "*", "--until", "+1h",
             "--authority", "a", "--purpose", "p", "--location", "l"),
        ):  # fmt: skip
            assert main([*(str(w) for w in words), *here]) == 0
        assert isinstance(node.poll(wait_ms=30_000), Offer)
        node.close()
    capsys.readouterr()
    assert main(["alerts", "--json", *here]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(t["event"], t["sequence"]) for t in told] == [("alert", 1), ("alert", 2)]

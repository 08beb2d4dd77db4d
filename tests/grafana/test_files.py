"""What is shipped for Grafana and Prometheus is what the generator writes, and what its readers accept."""

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from sentinel_core.config import SentinelConfig, WatchConfig
from sentinel_core.grafana import generate
from sentinel_core.grafana.files import FOLDER
from sentinel_core.grafana.provisioning import write
from sentinel_core.promql.parse import parse
from tests.grafana.panels import expressions

BOARDS = sorted((FOLDER / "dashboards").glob("*.json"))


def test_the_committed_files_are_what_is_generated() -> None:
    """Nobody edits them by hand, and nobody forgets to write them."""
    assert {name: text == (FOLDER / name).read_text() for name, text in generate.files()} == {
        str(path.relative_to(FOLDER)): True for path in FOLDER.rglob("*") if path.suffix in (".json", ".yaml")
    }


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_dashboards_have_what_grafana_needs(path: Path) -> None:
    """An id of their own for links, one datasource for every query, and PromQL that can be read."""
    board = json.loads(path.read_text())
    assert board["uid"] == path.stem
    assert len(expressions(board)) >= 5
    for panel, expression in expressions(board):
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["title"]
        parse(
            expression.replace("${metric}", "x")
            .replace("$label", "job")
            .replace("$lead", "5m")
            .replace("$horizon", "h")
        )
    places = [tuple(panel["gridPos"][side] for side in "xywh") for panel in board["panels"]]
    assert len(set(places)) == len(places)


def test_dashboards_have_ids_of_their_own() -> None:
    """Two with one id would replace each other."""
    assert len({json.loads(path.read_text())["uid"] for path in BOARDS}) == len(BOARDS) == 5


def test_written_files_are_for_the_sentinel_at_hand(tmp_path: Path) -> None:
    """Its address, its smallest granularity, the folder they lie in; a key only where one is needed."""
    model = "LinearTrendModel"
    watches = [
        WatchConfig(metric="up", model_class=model, granularity="30s"),
        WatchConfig(metric="x", model_class=model),
    ]
    write(SentinelConfig(emitter_port=8123, watches=watches), tmp_path / "near")
    [source] = yaml.safe_load((tmp_path / "near/provisioning/datasources/sentinel.yaml").read_text())["datasources"]
    assert source["url"] == "http://127.0.0.1:8123"
    assert source["jsonData"]["timeInterval"] == "30s"
    assert source["jsonData"]["httpMethod"] == "POST"
    assert "secureJsonData" not in source
    [provider] = yaml.safe_load((tmp_path / "near/provisioning/dashboards/sentinel.yaml").read_text())["providers"]
    assert len(list(Path(provider["options"]["path"]).glob("*.json"))) == 5
    compose = yaml.safe_load((tmp_path / "near/compose.yaml").read_text())
    assert compose["services"]["grafana"]["environment"]["GF_PATHS_PROVISIONING"] == f"{tmp_path}/near/provisioning"
    write(SentinelConfig(bind_address="0.0.0.0"), tmp_path / "far")
    [source] = yaml.safe_load((tmp_path / "far/provisioning/datasources/sentinel.yaml").read_text())["datasources"]
    assert source["jsonData"]["httpHeaderName1"] == "Authorization"
    assert source["secureJsonData"] == {"httpHeaderValue1": "Bearer $SENTINEL_KEY"}


@pytest.mark.prometheus
@pytest.mark.parametrize("name", ["forecasts", "quality", "sentinel"])
def test_rules_pass_their_unit_tests(name: str, tmp_path: Path) -> None:
    """promtool reads them, and each alert fires when it should."""
    tests = Path(__file__).parent / "rules" / f"{name}.yaml"
    (tmp_path / "test.yaml").write_text(tests.read_text().replace("RULES", str(FOLDER / "rules")))
    subprocess.run(["promtool", "check", "rules", str(FOLDER / "rules" / f"{name}.yaml")], check=True)
    done = subprocess.run(["promtool", "test", "rules", str(tmp_path / "test.yaml")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr

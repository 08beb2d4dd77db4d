"""README and CONTRIBUTING say what is: their code runs, their commands parse, and their tables are the code's own."""

import asyncio
import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import sys
import time
import tomllib
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
import yaml
from joblib.externals.loky import get_reusable_executor

from benchmarks.drift import Simulation
from sentinel_core import Sentinel, cli
from sentinel_core.alerts import dispatch
from sentinel_core.alerts.receivers import KINDS, webhook
from sentinel_core.apps.event_writer import EventMetrics
from sentinel_core.apps.query import QueryMetrics
from sentinel_core.apps.query_endpoints import ENDPOINTS
from sentinel_core.apps.query_threads import FORWARDING_PER_THREAD, WAITING_PER_THREAD
from sentinel_core.apps.sidecar import create_app
from sentinel_core.client import Client
from sentinel_core.config import AuthConfig, MonitorConfig, SentinelConfig, WatchConfig
from sentinel_core.emitter.exposition import CROSSING
from sentinel_core.emitter.production import Production
from sentinel_core.emitter.self_metrics import COUNTED, ProductionCollector, SidecarMetrics, SnapshotCollector
from sentinel_core.emitter.snapshot import Snapshot
from sentinel_core.grafana.files import FOLDER
from sentinel_core.grafana.provisioning import PORT, write
from sentinel_core.models.catalogue import BUILT_INS
from sentinel_core.monitoring import events, monitor
from sentinel_core.promql import limits
from sentinel_core.promql.errors import NotSupportedError
from sentinel_core.promql.evaluate import evaluate
from sentinel_core.promql.limits import Budget
from sentinel_core.promql.parse import parse
from sentinel_core.promql.values import Notes
from sentinel_core.query import quality, sources
from sentinel_core.query.actuals import ACTUAL
from sentinel_core.query.forecast_watches import HORIZON
from sentinel_core.query.forecasts import LEAD, ORIGIN, VERSION
from sentinel_core.security.principals import SCOPES
from sentinel_core.storage.store import Store
from sentinel_dagster.definitions import build_defs
from tests.promqltest import MemorySource

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
DOCUMENTS = {"README.md": README, "CONTRIBUTING.md": CONTRIBUTING}
BOTH = README + "\n" + CONTRIBUTING
LARGEST_PICTURE = 120_000  # bytes: the page is read on telephones too, and pictures stay in git for ever
ORDINARY = {"apt-get", "cd", "cp", "curl", "git", "grep", "mkdir", "pip", "promtool", "python3", "rm", "sqlite3", "tar"}
ORDINARY |= {"vmalert"}
OF_FORECASTS = {f"sentinel_predicted{one}" for one in ("", "_lower", "_upper", "_inner_lower", "_inner_upper")}
OF_SERIES = OF_FORECASTS | {
    suffix[1:] for suffix in (ACTUAL, *quality.HELP, *CROSSING)
}  # what follows the name of a series
LABELS_AND_PLACES = OF_SERIES | {HORIZON, VERSION, LEAD, ORIGIN, "sentinel_step", "sentinel_threshold"}
LABELS_AND_PLACES |= {"sentinel_artifacts", "sentinel_core", "sentinel_dagster"}


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of one language, without their fences."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def section(heading: str, text: str = README) -> str:
    """What stands under a heading, up to the next one of any level."""
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"there is no heading {heading!r}"
    return re.sub(r"^```.*?^```$", "", found[1], flags=re.MULTILINE | re.DOTALL)


def rows(text: str) -> list[list[str]]:
    """The rows of a section's tables, without their heads."""
    found = []
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        lines = [re.split(r"(?<!\\)\|", line.strip().strip("|")) for line in table.splitlines()]
        found += [[cell.strip() for cell in line] for line in lines[2:]]
    return found


def code(cell: str) -> list[str]:
    """The code spans of a cell."""
    return re.findall(r"`([^`]+)`", cell)


# ---- code


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[SentinelConfig]]:
    """An empty working folder; `Sentinel.start` only notes what it would start, and no event is sent."""
    configurations: list[SentinelConfig] = []
    monkeypatch.setattr(Sentinel, "start", lambda self, **_: configurations.append(self.config))
    monkeypatch.setenv("SENTINEL_KEY", f"sml_live_{'0' * 16}_{'0' * 64}")
    monkeypatch.setattr(Client, "send", _encoded)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    get_reusable_executor(max_workers=2).shutdown(kill_workers=True)  # new ones find the modules of this folder
    yield configurations
    get_reusable_executor(max_workers=2).shutdown(kill_workers=True)
    for name in [path.stem for path in tmp_path.glob("*.py")]:
        sys.modules.pop(name, None)


def _encoded(client: Client, model_id: str, **event: Any) -> None:
    """Instead of `Client.send`: whether Sentinel would take it."""
    assert not client._unusable
    body = {"model_id": model_id, "event_time": "2026-01-01T00:00:00Z", **event}
    _accepted(json.dumps(body), now=1_767_225_600.0)


def _accepted(body: str, now: float) -> None:
    found = events.read(body.encode(), "event", now, events.Digest(b"secret"))
    assert isinstance(found, events.Submission)
    assert not found.rejected
    assert len(found) == 1


@pytest.mark.parametrize("document", DOCUMENTS)
def test_python_runs(document: str, started: list[SentinelConfig], tmp_path: Path) -> None:
    """Every Python block runs; one that begins with a file's name is that file, and its tests pass."""
    for block in blocks(DOCUMENTS[document], "python"):
        name = re.match(r"# (\w+\.py)\n", block)
        if name:
            (tmp_path / name[1]).write_text(block)
            continue
        exec(compile(block, document, "exec"), {"__name__": "example"})
    for path in sorted(tmp_path.glob("test_*.py")):
        space: dict[str, Any] = {"__name__": path.stem}
        exec(compile(path.read_text(), path.name, "exec"), space)
        tests = [value for key, value in space.items() if key.startswith("test_")]
        assert tests, f"{path.name} has no test"
        for test in tests:
            test()
    assert document != "README.md" or started, "the quick start starts nothing"


def named(file: str) -> dict[str, Any]:
    """What the README's block of this name defines."""
    block = next(block for block in blocks(README, "python") if block.startswith(f"# {file}\n"))
    space: dict[str, Any] = {"__name__": file}
    exec(compile(block, file, "exec"), space)
    return space


def test_webhook_signature() -> None:
    """The README's check of a webhook takes what the receiver signs, and nothing else."""
    secret, body, now = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", b'{"type": "test"}', int(time.time())
    genuine = named("hook.py")["genuine"]
    signed = webhook.headers(secret, "dlv_1", now, body)
    assert genuine(signed, body, secret)
    assert not genuine(signed, b"{}", secret)
    assert not genuine(webhook.headers(secret, "dlv_1", now - 3_600, body), body, secret)


def test_drift_world() -> None:
    """The README's world is one that the simulation understands."""
    hour, value = named("my_world.py")["scores"](np.random.default_rng(1), 48, 20)
    assert Simulation(hour, value).hours == 48


def test_first_event() -> None:
    """The event of the README's curl would be accepted."""
    [sent] = re.findall(r"-d '(\{.*\})'", README)
    _accepted(re.sub(r"'\$\(date [^)]*\)'", "2026-01-01T00:00:00Z", sent), now=1_767_225_600.0)


def test_toml_is_valid(started: list[SentinelConfig], tmp_path: Path) -> None:
    """Every TOML block is a configuration without a problem, those with a model of one's own too."""
    for block in blocks(BOTH, "python"):
        if name := re.match(r"# (\w+\.py)\n", block):
            (tmp_path / name[1]).write_text(block)
    for block in blocks(BOTH, "toml"):
        SentinelConfig.from_dict(tomllib.loads(block))


def test_yaml_is_valid(tmp_path: Path) -> None:
    """Every YAML block can be read, and Prometheus accepts its own."""
    for block in blocks(BOTH, "yaml"):
        assert yaml.safe_load(block)
        promtool = shutil.which("promtool")
        if "scrape_configs" in block and promtool:
            (tmp_path / "prometheus.yml").write_text(block)
            command = [promtool, "check", "config", str(tmp_path / "prometheus.yml")]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr


# ---- commands


def commands(text: str) -> Iterator[list[str]]:
    """Every command line of the shell blocks, and every code span that begins as one of ours, as words."""
    for block in blocks(text, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            line = re.sub(r"^(?:export )?\w+=\$\((.*)\)$", r"\1", line)  # KEY=$(command)
            words = shlex.split(line, comments=True)
            while words:
                cut = next((at for at, word in enumerate(words) if word in ("&&", "|", ";")), len(words))
                if words[:cut]:
                    yield words[:cut]
                words = words[cut + 1 :]
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    for span in re.findall(r"`([^`\n]+)`", prose):
        if span.startswith(("sentinel ", "make ", "python -m ")):
            yield shlex.split(span)


def test_commands_exist() -> None:
    """Every command in the text would be understood: subcommands, targets, modules, addresses."""
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    used: dict[str, set[str]] = {"make": set(), "sentinel": set()}
    there = dict(leaves(cli._parser()))
    for words in commands(BOTH):
        while "=" in words[0]:  # an environment for the command
            words = words[1:]
        program, *rest = words
        match Path(program).name:
            case "make":
                wanted = {word for word in rest if "=" not in word}
                assert wanted <= targets, f"no target {wanted - targets}"
                used["make"] |= wanted
            case "sentinel":
                assert isinstance(cli._parser().parse_args(rest), Namespace)
                used["sentinel"].add(" ".join(rest[:2]) if " ".join(rest[:2]) in there else rest[0])
            case "python":
                assert rest[0] == "-m", words
                assert importlib.util.find_spec(rest[1]), f"no module {rest[1]}"
            case name:
                assert name in ORDINARY | {path.name for path in (ROOT / ".venv" / "bin").glob("*")}, words
    assert used["make"] >= {"run", "test", "check", "bench"}
    assert used["sentinel"] == set(there), "a subcommand is not in the text"


def leaves(parser: ArgumentParser, path: str = "") -> Iterator[tuple[str, ArgumentParser]]:
    """Every command of the command line, with its words."""
    inner = next((action.choices for action in parser._actions if isinstance(action.choices, dict)), {})
    for name, child in inner.items():
        yield from leaves(child, f"{path} {name}".strip())
    if not inner:
        yield path, parser


def test_addresses_exist(tmp_path: Path) -> None:
    """Every path of the sidecar in the text is answered."""
    found = re.findall(r"https?://(?:127\.0\.0\.1|localhost):8080[^\s`)\"<>]*", BOTH)
    config = SentinelConfig(artifact_store=str(tmp_path))
    with Store.open(config.resolved_sql_url, config.resolved_data_url) as store:
        store.database.migrate()
        app = create_app(config, store, status=lambda _: {})

        async def unknown() -> list[str]:
            transport = httpx.ASGITransport(app, client=("127.0.0.1", 50_000))
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as visitor:
                documented = (await visitor.get("/v1/openapi.json")).json()["paths"]
                paths = {urlsplit(url).path or "/" for url in found} - set(documented)
                return [path for path in paths if (await visitor.get(path)).status_code in (401, 404)]

        assert asyncio.run(unknown()) == []


# ---- tables


def written(entry: Field[Any]) -> str | None:
    """A field's default as a person writes it in TOML; None where it has none of its own."""
    value = entry.default if entry.default is not MISSING else entry.default_factory()  # type: ignore[misc]
    if value is None or isinstance(value, AuthConfig | MonitorConfig):
        return None
    return "{}" if value == {} else json.dumps(value)


@pytest.mark.parametrize(
    ("heading", "section_class"),
    [
        ("The whole: SentinelConfig", SentinelConfig),
        ("A watch: WatchConfig", WatchConfig),
        ("[monitoring]", MonitorConfig),
        ("[auth]", AuthConfig),
    ],
)
def test_configuration_tables(heading: str, section_class: type) -> None:
    """Each setting of the code is in its table with its default, and no other."""
    table = {code(row[0])[0]: code(row[1]) for row in rows(section(heading))}
    wanted = {entry.name: written(entry) for entry in fields(section_class)}
    assert set(table) == set(wanted)
    for name, default in wanted.items():
        assert table[name] == ([] if default is None else [default]), name


def test_production_tables() -> None:
    """What the text says of events, the rule, receivers and scopes is the code's own."""
    assert [code(row[0])[0] for row in rows(section("Events"))] == list(events.Event.__struct_fields__)
    kinds = {code(row[0])[0]: code(row[1]) for row in rows(section("Alerts"))}
    assert kinds == {name: list(kind.__struct_fields__) for name, kind in KINDS.items()}
    assert [code(row[0])[0] for row in rows(section("API"))] == list(SCOPES)
    assert f"(PSI above {monitor.UNKNOWN_WEEKDAYS:g})" in section("The rule")
    assert f"used to hold {monitor.SILENT_EVENTS:g} events" in section("Incidents")
    assert f"After {dispatch.TRANSIENT_ATTEMPTS} failures" in section("Alerts")
    assert f"or {dispatch.PERMANENT_ATTEMPTS} refusals" in section("Alerts")


def test_self_metrics_table() -> None:
    """The table of Sentinel's own metrics has every one of them and no other."""
    metrics = SidecarMetrics("0")
    EventMetrics(metrics.registry)
    QueryMetrics(metrics.registry)
    collectors = (SnapshotCollector(Snapshot(), 0.0), ProductionCollector(Production()), metrics.registry)
    families = {metric.name for collector in collectors for metric in collector.collect()} | set(COUNTED)
    wanted = {bare(name) for name in families if name.startswith("sentinel_")}
    found = [bare(name) for row in rows(section("Sentinel's own metrics")) for name in code(row[0])]
    assert sorted(found) == sorted(wanted)


def test_metric_names_in_the_text() -> None:
    """No word of the text looks like a metric or package of ours and is none."""
    known = {bare(name) for row in rows(section("Sentinel's own metrics")) for name in code(row[0])}
    for word in set(re.findall(r"(?<![\w-])_?(sentinel_\w+)", BOTH)):
        assert bare(word) in known | LABELS_AND_PLACES, word


def bare(name: str) -> str:
    """A family's name without what the formats append."""
    return re.sub("_(total|info)$", "", name)


@pytest.mark.filterwarnings("ignore:Parameter `:dagster_shared.utils.warnings.BetaWarning")  # see sentinel_dagster
def test_dagster_tables() -> None:
    """The tables of assets and of jobs have what Dagster loads, and no more."""
    definitions = build_defs(SentinelConfig())
    assets = {key.to_user_string() for key in definitions.resolve_asset_graph().get_all_asset_keys()}
    jobs = {job.name for job in definitions.jobs or ()}
    assert {code(row[0])[0] for row in rows(section("Assets"))} == assets
    assert {code(row[0])[0] for row in rows(section("Jobs"))} == jobs


def test_models_table() -> None:
    """Each built-in has its paragraph."""
    assert set(re.findall(r"^\*\*(\w+Model)\*\*", section("Models"), re.MULTILINE)) == set(BUILT_INS)


# ---- the query API and what is shipped for Grafana


def test_series_of_grafana() -> None:
    """The table of names has every kind of series of ours, and one that is not ours."""
    asked = [name for row in rows(section("Grafana")) for name in code(row[0])]
    assert {name for name in asked if not sources.ours(name)} == {"foo"}
    assert {name.removeprefix("foo_") for name in asked if name.startswith("foo_")} == OF_SERIES


def test_expressions_of_grafana() -> None:
    """Every expression of the text can be read, and what is said to be unsupported is refused as that."""
    chapter = r"^### (?:In your Grafana|Scrape it)\n.*?(?=^##)|^## Grafana\n.*?(?=^## )"
    chapters = re.findall(chapter, README, re.MULTILINE | re.DOTALL)
    shown = [text for chapter in chapters for block in blocks(chapter, "text") for text in re.split(r"\n\n+", block)]
    assert len(shown) == 8
    for text in shown:
        for expression in text.splitlines() if "#" not in text else [text]:
            parse(expression)
    refused = re.search(r"Not\s+supported are(.*?)and a few", README, re.DOTALL)
    assert refused
    for expression in code(refused[1]):
        with pytest.raises(NotSupportedError):
            evaluate(parse(expression), 0, 0, 0, MemorySource(), Budget(), Notes())


def test_endpoints_of_grafana() -> None:
    """The endpoints in the text are those that there are."""
    answered = section("What is answered").partition("\n\n")[0]
    wanted = {path.replace("{name:path}", "{name}") for path, _, _ in ENDPOINTS} | {"status/buildinfo"}
    assert set(code(answered)) - {"/api/v1", "promtool query"} == wanted


def test_limits_of_queries() -> None:
    """The numbers in the text are those that are enforced."""
    answers = {row[0]: row[1] for row in rows(section("What is answered"))}
    assert f"more than {limits.MAX_BYTES // 1024} KiB, {limits.MAX_DEPTH} levels, " in answers["400"]
    assert f"{limits.MAX_OPERATORS} operators or {limits.MAX_EXPRESSIONS} regular expressions" in answers["400"]
    assert f"more than {limits.MAX_POINTS:,} points" in answers["400"]
    at_once = " ".join(section("What is answered").split())
    assert f"and {FORWARDING_PER_THREAD} times as many that are passed on whole" in at_once
    assert f"{WAITING_PER_THREAD} times as many of each may wait" in at_once


def test_shipped_files() -> None:
    """The dashboards and rules in the text are those that are shipped."""
    boards = [json.loads(path.read_text())["title"] for path in (FOLDER / "dashboards").glob("*.json")]
    assert {f"Sentinel / {row[0]}" for row in rows(section("Dashboards"))} == set(boards)
    shipped = {
        path.name: [rule.get("alert") or rule["record"] for group in yaml.safe_load(path.read_text())["groups"]
                    for rule in group["rules"]]
        for path in (FOLDER / "rules").glob("*.yaml")
    }  # fmt: skip
    assert {code(row[0])[0]: code(row[2]) for row in rows(section("Alert on the future"))} == shipped


def test_written_files(tmp_path: Path) -> None:
    """What the text says of a written folder is in it."""
    write(SentinelConfig(), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"provisioning", "dashboards", "rules", "compose.yaml"}
    written_files = {str(Path("grafana") / path.relative_to(tmp_path)) for path in tmp_path.rglob("*.yaml")}
    assert set(re.findall(r"-rule=(\S+)", README)) <= written_files
    assert f"at port {PORT}; --port" in README


# ---- files


def test_pictures() -> None:
    """Every picture that is shown is there and small, and none is there that is not shown."""
    shown = set(re.findall(r"!\[[^\]]+\]\((docs/[^)]+)\)", README))
    assert shown == {str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.png")}
    assert all((ROOT / path).stat().st_size < LARGEST_PICTURE for path in shown)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links(document: str) -> None:
    """Links within the repository lead somewhere."""
    headings = {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", DOCUMENTS[document], re.MULTILINE)
    }
    for target in re.findall(r"\]\(([^)]+)\)", DOCUMENTS[document]):
        if target.startswith("#"):
            assert target[1:] in headings, target
        elif "://" not in target:
            assert (ROOT / target.partition("#")[0]).exists(), target


@pytest.mark.parametrize(
    "package",
    ["sentinel_core", "sentinel_core/apps", "sentinel_core/promql", "sentinel_core/query", "sentinel_dagster"],
)
def test_every_module_is_placed(package: str) -> None:
    """CONTRIBUTING's table of files names each module, and what it names is there."""
    named = {name.rstrip("/") for row in rows(section(package, CONTRIBUTING)) for name in code(row[0])}
    own = {path.name for path in (ROOT / package).iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert named - {"templates", "static"} == own - {"__init__.py"}

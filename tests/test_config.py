"""Configuration: every problem at once with its remedy; the same from Python, TOML and JSON."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sentinel_core
from sentinel_core import AuthConfig, SentinelConfig, WatchConfig
from sentinel_core.config import load_config
from sentinel_core.errors import ConfigError
from sentinel_core.models import ARIMAModel, ExponentialSmoothingModel

MODEL = "ExponentialSmoothingModel"


def watch(**settings: Any) -> WatchConfig:
    return WatchConfig(**{"metric": "up", "model_class": MODEL, **settings})


def problems(*watches: WatchConfig, **settings: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        SentinelConfig(watches=watches, **settings)
    return list(caught.value.problems)


def test_defaults_are_valid_and_documented() -> None:
    """Without any setting the configuration is valid and has the documented values."""
    config = SentinelConfig()
    assert (config.prometheus_url, config.emitter_port, config.artifact_store, list(config.watches)) == (
        "http://localhost:9090",
        8080,
        "./sentinel_artifacts",
        [],
    )
    assert (config.max_versions_per_metric, config.scrape_timeout, config.emit_confidence_bounds) == (5, 10.0, False)


def test_a_watch_counts_in_steps() -> None:
    """Grid and spans of a watch are known in seconds and steps."""
    found = watch(granularity="30s", horizon="5m", lookback="1h", history="2h")
    assert (found.step_seconds, found.horizon_steps, found.lookback_steps, found.history_steps) == (30, 10, 120, 240)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"granularity": "1x"}, "granularity: '1x' is not a duration; write 30s, 5m, 1h or 7d"),
        ({"granularity": 60}, "granularity: 60 is not text"),
        ({"granularity": "1s"}, "granularity: 1s is shorter than a tick can keep up with; write 15s or more"),
        ({"horizon": "90s"}, "horizon: 90s is not a multiple of granularity 1m; write 1m or 2m"),
        ({"horizon": "30s"}, "horizon: 30s is not a multiple of granularity 1m; write 1m"),
        ({"lookback": "100s"}, "lookback: 100s is not a multiple of granularity 1m; write 1m or 2m"),
        (
            {"horizon": "30d", "history": "90d"},
            "horizon: 43,200 steps; at most 10,000: write 6d22h40m or less, or take a",
        ),
        ({"lookback": "30d", "history": "90d"}, "lookback: 43,200 steps; at most 20,000: write"),
        ({"granularity": "5s", "history": "3000d"}, "history: 51,840,000 steps; at most 1,000,000: write"),
        ({"history": "99999999999999999999w"}, "history: 99999999999999999999w is longer than ten years"),
        ({"history": "30m"}, "history: 30m is shorter than lookback + horizon; write 35m or more"),
        ({"inner_level": 0.95}, "inner_level: 0.95 is not a share below level 0.95; write 0.8"),
        ({"inner_level": 0.8, "level": 0.5}, "inner_level: 0.8 is not a share below level 0.5; write one, as 0.25"),
        ({"anomaly_quiet": "1d"}, "anomaly_quiet: 1,440 steps; at most 720: write 12h or less, or take a longer"),
        ({"drift_cooldown": ""}, "drift_cooldown: '' is not a duration; write 30s, 5m, 1h or 7d"),
        ({"drift_finetune_threshold": 0.5}, "drift_finetune_threshold: 0.5 is above drift_retrain_threshold 0.3; low"),
        (
            {"drift_finetune_threshold": -1},
            "drift_finetune_threshold: -1 is not a threshold; write a number of 0 or more",
        ),
        ({"drift_retrain_threshold": float("nan")}, "drift_retrain_threshold: nan is not a threshold"),
        ({"drift_unit": "mse"}, "drift_unit: 'mse' is unknown; write mae, scaled or auto"),
        ({"kind": "histogram"}, "kind: 'histogram' is unknown; write auto, gauge or counter"),
        ({"level": 95}, "level: 95 is not a share between 0 and 1; write 0.95"),
        (
            {"thresholds": {"over": 1.0}},
            "thresholds: 'over' is unknown; write above, below or both, as { above = 0.9 }",
        ),
        ({"thresholds": {"above": float("inf")}}, "thresholds: above = inf is not a value of a metric; write a number"),
        (
            {"thresholds": {"above": 1, "below": 2}},
            "thresholds: every value is above 1 or below 2; above has to be the",
        ),
        (
            {"thresholds": {"above": "90%"}},
            "thresholds: {'above': '90%'} is not a table of numbers, as { above = 0.9 }",
        ),
        (
            {"thresholds": {"above": 1}, "bounds": [0, 1]},
            "thresholds: no forecast gets above 1 within bounds [0, 1]; write one inside, or no bounds",
        ),
        (
            {"ignore": ["2026-11-20", "yesterday"]},
            "ignore: 'yesterday' is not a span of time; write a day as 2026-11-20, or 2026-11-20T08:00/2026-11-20T12",
        ),
        (
            {"ignore": ["2026-11-20T12:30/2026-11-20T08:00"]},
            "ignore: '2026-11-20T12:30/2026-11-20T08:00' ends before it begins; write the earlier time first",
        ),
        ({"ignore": ["2026-11-20/"]}, "ignore: '2026-11-20/' has no end; write it after a slash"),
        ({"ignore": ["2026-11-20T08:00"]}, "ignore: '2026-11-20T08:00' has no end; write it after a slash"),
        ({"ignore": "2026-11-20"}, "ignore: '2026-11-20' is not a list of texts in quotes"),
        (
            {"holidays": "US-XY", "model_class": "SeasonalRidgeModel"},
            "holidays: 'US-XY' is unknown: Entity `US` does not have subdivision XY; write a country as",
        ),
        (
            {"holidays": "de", "model_class": "SeasonalRidgeModel"},
            "holidays: 'de' is unknown: there is no country 'de'; write a country as DE",
        ),
        (
            {"holidays": "utils", "model_class": "SeasonalRidgeModel"},
            "holidays: 'utils' is unknown: there is no country 'utils'; write a country as DE",
        ),
        (
            {"holidays": "DE"},
            f"holidays: {MODEL} knows none; remove it, or write model_class = SeasonalRidgeModel",
        ),
        ({"timezone": "Berlin"}, "timezone: 'Berlin' is unknown; write a name as Europe/Berlin"),
        ({"timezone": "/etc/passwd"}, "timezone: '/etc/passwd' is unknown; write a name as Europe/Berlin"),
        ({"threshold_probability": 90}, "threshold_probability: 90 is not a share above 0, up to 1; write 0.9"),
        ({"max_series": 0}, "max_series: 0 is not above 0"),
        ({"max_series": True}, "max_series: True is not a whole number"),
        ({"drift_window": 0}, "drift_window: 0 is not above 0"),
        ({"cron": "every hour"}, "cron: 'every hour' is not a schedule; write five fields, as 0 */6 * * *"),
        ({"cron": "0 0 * * * *"}, "cron: '0 0 * * * *' is not a schedule"),
        ({"cron": "0 0 30 2 *"}, "cron: '0 0 30 2 *' never comes round"),
        ({"metric": None}, "metric: required; write the metric's name, or a PromQL expression in query"),
        (
            {"query": "up", "name": "n"},
            "query: a watch has either metric (with labels) or query (with name); remove one",
        ),
        ({"name": "n"}, "name: is only for a query"),
        ({"metric": None, "query": "up"}, "name: required with query"),
        ({"metric": None, "query": " ", "name": "n"}, "query: is empty"),
        ({"metric": None, "query": "up", "name": "a b"}, "name: 'a b' is not a metric's name"),
        ({"metric": None, "query": "up", "name": "n", "labels": {"a": "b"}}, "labels: belong to metric; write the"),
        ({"metric": None, "query": "up", "name": "n", "kind": "counter"}, "kind: a query is forecast as it is"),
        ({"metric": "up{job='x'}"}, "metric: \"up{job='x'}\" is not a metric's name; put matchers into labels"),
        ({"labels": {"a-b": "x"}}, "labels: 'a-b' is not a label's name"),
        ({"labels": {"__name__": "x"}}, "labels: __name__ is the metric's name"),
        ({"labels": {"a": 1}}, "labels: {'a': 1} is not a table of text to text"),
        ({"bounds": [1, 0]}, "bounds: [1, 0] are no lowest and highest value; write [0, 1], or [0, inf]"),
        ({"bounds": [0]}, "bounds: [0] are no lowest and highest value"),
        ({"bounds": ["0", 1]}, "bounds: ['0', 1] is not a list of numbers"),
        ({"model_class": None}, "model_class: None is not a model; name LinearTrendModel"),
        ({"model_class": "Prophet"}, "model_class: there is no built-in 'Prophet'"),
        ({"model_class": "no_such:Model"}, "model_class: importing no_such raised ModuleNotFoundError"),
        ({"model_class": "json:Model"}, "model_class: json has no 'Model'"),
        ({"model_class": "json:JSONDecoder"}, "model_class: 'json:JSONDecoder' is not a model"),
        (
            {"model_class": "ARIMAModel", "model_params": {"colour": 1}},
            "model_params: ARIMAModel has no parameter 'colour'",
        ),
        ({"model_class": "ARIMAModel", "model_params": {"p": -1}}, "model_params: {'p': -1} cannot be used: "),
    ],
)
def test_each_problem_of_a_watch_is_named_with_its_remedy(settings: Mapping[str, Any], problem: str) -> None:
    """One wrong setting gives one problem, at its place and with what to write instead."""
    [found] = problems(watch(**settings))
    assert found.startswith(f"watches[0].{problem}")


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (
            {"prometheus_url": "localhost:9090"},
            "prometheus_url: 'localhost:9090' is not an HTTP address; write http://",
        ),
        ({"prometheus_url": "htp://me:secret@h/"}, "prometheus_url: 'htp://***@h/' is not an HTTP address"),
        ({"prometheus_url": "http://h:99999"}, "prometheus_url: 'http://h:99999' is not an HTTP address"),
        ({"prometheus_url": "http://ho st:9090"}, "prometheus_url: 'http://ho st:9090' is not an HTTP address"),
        ({"prometheus_url": "http://%zz"}, "prometheus_url: 'http://%zz' is not an HTTP address"),
        ({"prometheus_url": "http://a*b"}, "prometheus_url: 'http://a*b' is not an HTTP address"),
        ({"prometheus_url": "http://h/?a=b"}, "prometheus_url: h is followed by a query; write the address without ?"),
        ({"emitter_port": 0}, "emitter_port: 0 is not a port; write 1 to 65535"),
        ({"dagster_port": "3000"}, "dagster_port: '3000' is not a whole number"),
        ({"dagster_port": 8080}, "dagster_port: 8080 is emitter_port too; give each its own"),
        ({"artifact_store": "s3://bucket"}, "artifact_store: 's3://bucket' is no local folder; an s3:// URL goes into"),
        ({"max_versions_per_metric": 0}, "max_versions_per_metric: 0 keeps nothing; write 1 or more"),
        ({"scrape_timeout": 0}, "scrape_timeout: 0 is not a time; write seconds above 0, as 10.0"),
        ({"scrape_timeout": "10s"}, "scrape_timeout: '10s' is not a number"),
        ({"query_timeout": "soon"}, "query_timeout: 'soon' is not a duration"),
        ({"query_concurrency": 0}, "query_concurrency: 0 is not between 1 and 64"),
        ({"query_samples": 0}, "query_samples: 0 answers nothing"),
        ({"bind_address": "300.1.1.1"}, "bind_address: '300.1.1.1' is not an address"),
        ({"sql_url": "mysql://u:secret@h/d"}, "sql_url: is no database that Sentinel knows"),
        ({"sql_url": "postgresql://u:secret@h:port/d"}, "sql_url: is no database that Sentinel knows"),
        ({"sql_url": "postgresql://u:secret@h:99999/d"}, "sql_url: is no database that Sentinel knows"),
        ({"data_url": "s3:///x"}, "data_url: 's3:///x' is no place for data"),
        ({"window_retention": "11w1000d5000d"}, "window_retention: 11w1000d5000d is longer than ten years"),
        ({"auth": "x"}, "auth: 'x' is not a table (AuthConfig)"),
        ({"data_url": "/data"}, "data_url: '/data' is no place for data; write file:///folder or s3://bucket/prefix"),
        ({"settle_delay": "soon"}, "settle_delay: 'soon' is not a duration"),
        ({"emit_steps": [0]}, "emit_steps: [0]: leads count from 1"),
        ({"emit_confidence_bounds": "yes"}, "emit_confidence_bounds: 'yes' is not true or false"),
        ({"auth": AuthConfig(username="me")}, "auth: basic authentication needs both username and password_env"),
        ({"auth": AuthConfig(cert_file="c")}, "auth: a client certificate needs both cert_file and key_file"),
        ({"auth": AuthConfig(headers_env={"a b": "X"})}, "auth.headers_env: 'a b' is not a header's name"),
        (
            {"auth": AuthConfig(bearer_token_env="T", username="me", password_env="P")},
            "auth: bearer_token_env and username exclude each other; keep one",
        ),
    ],
)
def test_each_problem_of_the_whole_is_named_with_its_remedy(settings: Mapping[str, Any], problem: str) -> None:
    """One wrong setting of the whole gives one problem, with what to write instead and without secrets."""
    [found] = problems(**settings)
    assert found.startswith(problem)
    assert "secret" not in found


def test_everything_wrong_is_in_one_error(tmp_path: Path) -> None:
    """A file with problems of every kind raises one ConfigError that lists them all."""
    file = tmp_path / "sentinel.toml"
    file.write_text("""
        emitter_prt = 1
        dagster_port = -1
        [auth]
        token = "x"
        [[watches]]
        metric = "up"
        horizn = "5m"
        granularity = "2m"
        horizon = "5m"
        cron = "x"
        [[watches]]
        labels = 3
    """)
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    text = str(caught.value)
    assert text.startswith("7 problems in the configuration:")
    for part in (
        "emitter_prt: unknown field; did you mean emitter_port?",
        "auth.token: unknown field; known: bearer_token_env",
        "watches[0].horizn: unknown field; did you mean horizon?",
        "dagster_port: -1 is not a port",
        "watches[0].horizon: 5m is not a multiple of granularity 2m; write 4m or 6m",
        "watches[0].cron: 'x' is not a schedule",
        "watches[1].labels: 3 is not a table of text to text",
    ):
        assert part in text


def test_the_same_watch_twice_is_refused() -> None:
    """Two watches of one selector, grid and horizon would emit every line twice."""
    [found] = problems(watch(), watch(model_class="ARIMAModel", cron="0 0 * * *"))
    assert found.startswith("watches[1]: is the same as watches[0] (up, granularity 1m, horizon 5m); remove one")
    SentinelConfig(watches=[watch(), watch(horizon="10m"), watch(labels={"job": "a"})])


def test_one_name_for_two_queries_is_refused() -> None:
    """Predictions of two expressions under one name could not be told apart."""
    first, second = (watch(metric=None, query=query, name="n") for query in ("a", "b"))
    [found] = problems(first, second)
    assert found == "watches[1].name: watches[0] may emit 'n' too, of another expression; choose another name"


@pytest.mark.parametrize(
    ("first", "second", "field"),
    [
        ({"metric": "a"}, {"metric": None, "query": "a * 100", "name": "a", "horizon": "10m"}, "name"),
        ({"metric": None, "query": "x", "name": "a:b"}, {"metric": None, "query": "y", "name": "a_b"}, "name"),
        ({"metric": "hits", "kind": "counter"}, {"metric": None, "query": "x", "name": "hits_rate"}, "name"),
        ({"metric": "a:b"}, {"metric": "a_b"}, "kind"),
        ({"metric": "hits"}, {"metric": "hits_rate"}, "kind"),
    ],
)
def test_names_that_could_meet_are_refused(first: dict[str, Any], second: dict[str, Any], field: str) -> None:
    """Samples are kept by emitted name and labels, so no two expressions may have one name."""
    [found] = problems(watch(**first), watch(**second))
    assert found.startswith(f"watches[1].{field}: watches[0] may emit '")


def test_names_that_cannot_meet_are_accepted() -> None:
    """A metric under other labels or horizons, and what its kind tells apart, are no conflict."""
    SentinelConfig(watches=[watch(metric="hits", kind="gauge"), watch(metric="hits_rate", kind="gauge")])
    SentinelConfig(watches=[watch(labels={"a": "b"}), watch(horizon="10m"), watch(kind="counter", labels={"c": "d"})])


def test_steps_to_emit_that_no_watch_looks_ahead_are_refused() -> None:
    """A lead beyond the longest horizon would leave /metrics empty without a word."""
    found = problems(watch(horizon="4m"), watch(horizon="2m"), emit_steps=[1, 100])
    assert found == ["emit_steps: no watch looks 100 steps ahead; the longest horizon has 4"]
    SentinelConfig(watches=[watch(horizon="4m"), watch(horizon="2m")], emit_steps=[4])


def test_regular_expressions_are_left_to_prometheus() -> None:
    """RE2 is not Python's: what one of them refuses or warns of may be good in the other."""
    SentinelConfig(watches=[watch(labels={"a": r"=~\pL+", "b": "=~[[:alpha:]]+"})])


def test_hosts_are_written_as_networks_do() -> None:
    """Names with underscores, addresses of both kinds, credentials and a path are good."""
    for url in ("http://my_prom:9090", "https://u:p@p.example.com./prom", "http://[::1]:9090", "http://10.0.0.1"):
        SentinelConfig(prometheus_url=url)
    for url in (
        "postgresql+psycopg://u:p%40[#@db_1:5432/d",
        "postgresql://u@/d?host=/run/pg",
        "postgresql://[::1]:1/d",
    ):
        SentinelConfig(sql_url=url)


def test_a_module_that_exits_is_a_problem_of_its_watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script taken for a module of models ends nothing but its own import."""
    (tmp_path / "model_that_exits.py").write_text("import sys\nsys.exit(0)\n")
    monkeypatch.syspath_prepend(tmp_path)
    [found] = problems(watch(model_class="model_that_exits:Mine"))
    assert found.startswith("watches[0].model_class: importing model_that_exits raised SystemExit: 0")


def test_a_class_of_the_running_script_is_refused_with_the_reason(tmp_path: Path) -> None:
    """A class defined in __main__ cannot be imported by Dagster's processes, and the error says so."""
    script = tmp_path / "script.py"
    script.write_text(
        "from sentinel_core import SentinelConfig, WatchConfig\n"
        "from sentinel_core.models import ExponentialSmoothingModel\n"
        "class Mine(ExponentialSmoothingModel): pass\n"
        "SentinelConfig(watches=[WatchConfig(metric='up', model_class=Mine)])\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert "watches[0].model_class: Mine is defined in the script that is run" in done.stderr
    assert "move it to the top level of a module" in done.stderr


def test_a_class_and_its_name_are_the_same_model() -> None:
    """Class, built-in's name and import path give one specification, so artifacts fit whichever is written."""
    paths = [ExponentialSmoothingModel, MODEL, "sentinel_core.models.exponential_smoothing:ExponentialSmoothingModel"]
    assert {watch(model_class=path).model_path for path in paths} == {MODEL}
    assert len({watch(model_class=path).spec_digest for path in paths}) == 1
    assert watch(model_class=ARIMAModel).spec_digest != watch().spec_digest
    assert watch(bounds=[0, 1]).spec_digest == watch(bounds=(0.0, 1.0)).spec_digest != watch().spec_digest
    assert watch(lookback="1h").spec_digest != watch().spec_digest
    assert watch(cron="0 0 * * *").spec_digest == watch().spec_digest
    assert watch(timezone="Europe/Berlin").spec_digest == watch().spec_digest
    assert watch(holidays="DE").spec_digest != watch().spec_digest


def test_what_is_ignored_counts_where_it_was_learnt() -> None:
    """A span within the history of a training changes what that should have been made for, as far as it was over."""
    end, day = 1_795_132_800, 86_400  # 2026-11-20 00:00 UTC
    plain, ignoring = watch(), watch(ignore=["2026-11-17", "2026-11-19T18:00/2026-11-20T06:00"])
    assert plain.digest_until(end) == plain.spec_digest
    assert ignoring.digest_until(end) != plain.digest_until(end)
    assert ignoring.digest_until(end - 4 * day) == plain.digest_until(end - 4 * day)  # it all was yet to come
    assert ignoring.digest_until(end + 9 * day) == plain.digest_until(end + 9 * day)  # it is forgotten
    prolonged = watch(ignore=["2026-11-17", "2026-11-19T18:00/2026-11-20T09:00"])
    assert prolonged.digest_until(end) == ignoring.digest_until(end)
    assert prolonged.digest_until(end + day) != ignoring.digest_until(end + day)


def test_a_watch_that_names_no_model_has_the_default() -> None:
    """Without `model_class` it is forecast by the model that suits most metrics."""
    config = SentinelConfig(watches=[WatchConfig(metric="up")])
    assert config.watches[0].model_path == "SeasonalRidgeModel"


def test_slugs_follow_what_is_forecast_and_not_how() -> None:
    """Another model, lookback or threshold keeps a watch's slug; another selector, grid or horizon changes it."""
    same = [
        watch(),
        watch(model_class="ARIMAModel"),
        watch(lookback="1h"),
        watch(drift_unit="scaled"),
        watch(horizon="300s"),
    ]
    others = [watch(horizon="10m"), watch(granularity="5m"), watch(labels={"a": "b"}), watch(labels={"a": "!=b"})]
    assert len({found.slug for found in same}) == 1
    assert len({found.slug for found in [watch(), *others]}) == 5


@given(
    st.from_regex(r"[a-zA-Z_:][a-zA-Z0-9_:]{0,80}", fullmatch=True),
    st.dictionaries(st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_]{0,5}", fullmatch=True), st.text(max_size=8), max_size=3),
)
def test_slugs_are_legal_partition_keys(metric: str, labels: dict[str, str]) -> None:
    """Whatever the selector, the slug is at most 63 of the characters that Dagster allows."""
    assert re.fullmatch(r"[A-Za-z0-9_.-]{1,63}", WatchConfig(metric=metric, labels=labels).slug)


def test_json_round_trip_keeps_everything() -> None:
    """What is written for the children reads back equal, models by name."""
    config = SentinelConfig(
        watches=[
            watch(model_class=ARIMAModel, model_params={"p": 2}, labels={"a": '=~x|"y"'}),
            watch(metric=None, query="sum(up)", name="n"),
        ],
        artifact_store="/tmp/store",
        emit_steps=[1, 5],
        auth=AuthConfig(headers_env={"X-Scope-OrgID": "TENANT"}),
    )
    again = SentinelConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again.to_dict() == config.to_dict()
    assert [found.slug for found in again.watches] == [found.slug for found in config.watches]
    assert again.auth == config.auth


def test_where_the_configuration_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The given file, else $SENTINEL_CONFIG, else ./sentinel.toml, else the defaults; the store is beside the file."""
    monkeypatch.delenv("SENTINEL_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)
    assert load_config() == SentinelConfig()
    (tmp_path / "sentinel.toml").write_text("emitter_port = 1001\n")
    assert load_config().emitter_port == 1001
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "other.json").write_text('{"emitter_port": 1002, "artifact_store": "./store"}')
    monkeypatch.setenv("SENTINEL_CONFIG", "elsewhere/other.json")
    assert load_config().emitter_port == 1002
    assert load_config().store_path == tmp_path / "elsewhere" / "store"
    assert load_config(tmp_path / "sentinel.toml").emitter_port == 1001


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.toml", "x = ", "is not valid TOML: Invalid value (at end of document)"),
        ("a.json", "{", "is not valid JSON"),
        ("a.json", "[]", "is not a table of settings"),
        ("a.toml", None, "no such file; write one with `sentinel init`"),
        ("a.toml", "watches = 3", "watches: 3 is not a list of tables (WatchConfig)"),
        ("a.toml", "watches = [3]", "watches: [3] is not a list of tables (WatchConfig)"),
        ("a.toml", 'artifact_store = ""', "artifact_store: '' is no local folder"),
        ("a.toml", 'artifact_store = "s3://b"', "artifact_store: 's3://b' is no local folder; an s3:// URL goes into"),
        ("a.toml", "\ufeffemitter_port = 0", "emitter_port: 0 is not a port"),
    ],
)
def test_files_that_cannot_be_used_are_said(tmp_path: Path, name: str, text: str | None, words: str) -> None:
    """A missing, malformed or foreign file is one ConfigError that names it."""
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=re.escape(words)):
        load_config(tmp_path / name)


def test_an_unknown_slug_lists_the_known() -> None:
    """Asking for a watch that is not configured says which are."""
    config = SentinelConfig(watches=[watch()])
    assert config.watch(config.watches[0].slug) is config.watches[0]
    with pytest.raises(ConfigError, match="no watch has the slug 'x'; configured: up-"):
        config.watch("x")


def test_urls_and_places_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores resolve to absolute places; addresses are those to ask from this machine."""
    monkeypatch.chdir(tmp_path)
    config = SentinelConfig(artifact_store="store", bind_address="0.0.0.0")
    assert config.resolved_sql_url == f"sqlite:///{tmp_path}/store/sentinel.db"
    assert config.resolved_data_url == f"file://{tmp_path}/store/data"
    assert (config.sidecar_url, config.dagster_url) == ("http://127.0.0.1:8080", "http://127.0.0.1:3000")
    assert SentinelConfig(bind_address="::1").sidecar_url == "http://[::1]:8080"


def test_importing_is_light() -> None:
    """`from sentinel_core import Sentinel, …` brings neither Dagster nor the numeric libraries."""
    program = (
        "import sys, sentinel_core; print([m for m in ('dagster', 'numpy', 'sqlalchemy', 'httpx') if m in sys.modules])"
    )
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    assert subprocess.check_output([sys.executable, "-c", program], env=environment, text=True) == "[]\n"


def test_public_names_are_exported() -> None:
    """Every name of __all__ is there."""
    assert all(hasattr(sentinel_core, name) for name in sentinel_core.__all__)

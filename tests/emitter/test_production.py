"""Models in production on /metrics, from a real store."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_plain

from sentinel_core.alerts import receivers
from sentinel_core.config import SentinelConfig
from sentinel_core.emitter.exposition import OPENMETRICS, OPENMETRICS_END, PLAIN
from sentinel_core.emitter.production import PER_MODEL
from sentinel_core.emitter.self_metrics import ProductionCollector, SnapshotCollector, encode
from sentinel_core.emitter.snapshot import Snapshot, SnapshotLoader
from sentinel_core.incidents import lifecycle
from sentinel_core.incidents.lifecycle import Kind, Subject
from sentinel_core.monitoring.assessment import Assessment, OutputAssessment
from sentinel_core.monitoring.monitor import State
from sentinel_core.storage import event_log, schema, watch_store
from sentinel_core.storage.store import Store
from tests.incidents import situations

NOW = 1_800_000_000.0
FRAUD = {"project": "default", "model": "fraud"}
SCORES = OutputAssessment(
    "score", State.CRITICAL, psi=0.5, adjusted=0.4, lower=0.3, upper=0.6, floor=0.1, limit=0.2, p=0.0, phi=1.0,
    n_baseline=4_000, n_current=1_000, days=1, bins=(),
)  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty one with its tables."""
    config = SentinelConfig(artifact_store=str(tmp_path))
    with Store.open(config.resolved_sql_url, config.resolved_data_url) as opened:
        opened.database.migrate()
        yield opened


def model(store: Store, name: str = "fraud", **values: Any) -> Subject:
    """Register a model; returns it as the subject of a PSI incident."""
    with store.database.write() as connection:
        subject = situations.model(connection, name)
        if values:
            connection.execute(schema.monitored_models.update().values(**values))
    return subject


def incident(store: Store, subject: Subject, state: str, *actions: lifecycle.Action) -> None:
    """An incident that opened at a state of the model, and what people did about it."""
    with store.database.write() as connection:
        found = situations.opened(connection, subject, state)
        for action in actions:
            found = situations.acted(connection, found, action)


def evaluated(store: Store, outputs: tuple[OutputAssessment, ...] = (SCORES,)) -> None:
    """Write an evaluation of model 1, as the pipeline does."""
    found = Assessment(State.CRITICAL, int(NOW), 1, calm=False, eased=False, silent=False, outputs=outputs)
    state, progress = schema.monitor_states, schema.monitor_progress
    with store.database.write() as connection:
        connection.execute(state.delete())
        connection.execute(
            state.insert().values(model_id=1, hour=found.hour, state="critical", assessment=found.to_json())
        )
        connection.execute(progress.update().values(revision=progress.c.revision + 1))


def shown(snapshot: Snapshot) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Labels and values by sample name; both formats must be readable."""
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for collector in (ProductionCollector(snapshot.production), SnapshotCollector(snapshot, NOW)):
        list(parse_openmetrics((encode(collector, OPENMETRICS) + OPENMETRICS_END).decode()))
        for family in parse_plain(encode(collector, PLAIN).decode()):
            for sample in family.samples:
                found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def test_a_model_with_its_newest_evaluation(store: Store) -> None:
    """PSI with its interval and normal range, state, severity, times and events, labelled with project and model."""
    fraud = model(store, events=7, last_event_at=int(NOW) - 5)
    incident(store, fraud, "critical", "acknowledge")
    evaluated(store)
    found = shown(SnapshotLoader(store, SentinelConfig()).load(NOW))
    values = {name: found[name] for name in PER_MODEL}
    assert values == {
        "sentinel_model_psi": [(FRAUD, 0.5)],
        "sentinel_model_psi_adjusted": [(FRAUD, 0.4)],
        "sentinel_model_psi_lower": [(FRAUD, 0.3)],
        "sentinel_model_psi_upper": [(FRAUD, 0.6)],
        "sentinel_model_psi_limit": [(FRAUD, 0.2)],
        "sentinel_model_state": [(FRAUD, 2.0)],
        "sentinel_model_severity": [(FRAUD, 2.0)],
        "sentinel_model_evaluated_timestamp_seconds": [(FRAUD, NOW)],
        "sentinel_model_last_event_timestamp_seconds": [(FRAUD, NOW - 5)],
        "sentinel_model_enabled": [(FRAUD, 1.0)],
    }
    assert found["sentinel_model_events_total"] == [(FRAUD, 7.0)]


def test_what_a_model_does_not_have_yet_has_no_sample(store: Store) -> None:
    """Before its first evaluation a model has no PSI, rather than 0; nor has one with too little data."""
    model(store)
    loader = SnapshotLoader(store, SentinelConfig())
    young = {"sentinel_model_severity", "sentinel_model_enabled"}
    assert {name for name in PER_MODEL if name in shown(loader.load(NOW))} == young
    nothing = dict.fromkeys(("psi", "adjusted", "lower", "upper", "limit"))
    evaluated(store, (replace(SCORES, **nothing),))
    found = {name for name in PER_MODEL if name in shown(loader.load(NOW))}
    assert found == young | {"sentinel_model_state", "sentinel_model_evaluated_timestamp_seconds"}


def test_incidents_are_counted_by_what_they_are_about(store: Store) -> None:
    """A model's by its name, forecasts' by their watch; the severity of a model is that of what is not over."""
    fraud = model(store)
    for _ in range(2):
        incident(store, fraud, "critical", "resolve", "close")
    incident(store, replace(fraud, kind="silence"), "warning")
    with store.database.write() as connection:
        ids = watch_store.sync_watches(connection, [("latency-1", "latency")], NOW)
    kinds: tuple[Kind, ...] = ("forecast", "threshold")
    for kind in kinds:
        incident(store, Subject(1, kind, "latency", watch_id=ids["latency-1"]), "warning")
    found = shown(SnapshotLoader(store, SentinelConfig()).load(NOW))
    counted = {tuple(sorted(labels.items())): value for labels, value in found["sentinel_incidents"]}
    about = {"project": "default", "model": "fraud"}
    watch = {"project": "default", "kind": "forecast", "watch": "latency-1", "state": "open", "severity": "warn"}
    assert counted == {
        tuple(sorted(labels.items())): value
        for labels, value in (
            ({**about, "kind": "psi", "state": "closed", "severity": "critical"}, 2.0),
            ({**about, "kind": "silence", "state": "open", "severity": "warn"}, 1.0),
            (watch, 1.0),
            ({**watch, "kind": "threshold"}, 1.0),
        )
    }
    assert found["sentinel_model_severity"] == [(FRAUD, 1.0)]


def test_what_waits(store: Store) -> None:
    """Acknowledged events that nobody has drained, and alerts that are owed or were given up."""
    with store.database.write() as connection:
        event_log.append(connection, NOW - 30, 40, b"")
        event_log.append(connection, NOW - 20, 2, b"")
        receivers.add(connection, 1, "ops", "slack", {"url": "https://hooks.example.org/"}, NOW)
    incident(store, model(store), "critical")
    with store.database.write() as connection:
        connection.execute(schema.deliveries.update().values(state="dead"))
    found = shown(SnapshotLoader(store, SentinelConfig()).load(NOW))
    assert found["sentinel_event_log_events"] == [({}, 42.0)]
    assert found["sentinel_event_log_oldest_timestamp_seconds"] == [({}, NOW - 30)]
    assert found["sentinel_deliveries"] == [({"state": "pending"}, 0.0), ({"state": "dead"}, 1.0)]


def test_a_stream_of_events_reads_no_model_again(store: Store) -> None:
    """Every commit moves the store's token; models are the same objects until something about them has changed."""
    model(store)
    evaluated(store)
    loader = SnapshotLoader(store, SentinelConfig())
    before = loader.load(NOW)
    with store.database.write() as connection:
        event_log.append(connection, NOW, 1, b"")
    after = loader.load(NOW + 1)
    assert after.waiting.backlog.events == 1
    assert after.production is before.production
    assert after.watches is before.watches
    evaluated(store)
    assert loader.load(NOW + 2).production is not before.production

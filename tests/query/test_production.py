"""Models in production over time: what /metrics says of them now, at any time."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sentinel_core.config import SentinelConfig
from sentinel_core.emitter.production import per_model
from sentinel_core.emitter.snapshot import SnapshotLoader
from sentinel_core.incidents.lifecycle import Subject
from sentinel_core.monitoring.monitor import State
from sentinel_core.promql.errors import ExecutionError
from sentinel_core.promql.limits import Budget
from sentinel_core.promql.values import is_stale
from sentinel_core.query.production import NAMES, ProductionSource
from sentinel_core.series import Matcher
from sentinel_core.storage import event_store, model_store, watch_store
from sentinel_core.storage.segments import DATASETS
from sentinel_core.storage.store import Store
from tests.incidents import situations
from tests.incidents.situations import HOUR, START

EVERYTHING = Matcher("__name__", "=~", ".+")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty one with its tables."""
    config = SentinelConfig(artifact_store=str(tmp_path))
    with Store.open(config.resolved_sql_url, config.resolved_data_url) as opened:
        opened.database.migrate()
        yield opened


def source(store: Store, now: float = START + 1_000 * HOUR, projects: frozenset[str] | None = None) -> ProductionSource:
    """What is tested, at a time."""
    return ProductionSource(store, SentinelConfig, lambda: now, projects)


def model(store: Store, name: str = "fraud", project_id: int = 1) -> Subject:
    """A registered model."""
    with store.database.write() as connection:
        return situations.model(connection, name, project_id)


def evaluated(store: Store, subject: Subject, hour: int, state: State, output: int = 0, **numbers: float) -> None:
    """What an evaluation leaves of one output, `hour` hours after START."""
    row = {name: np.zeros(1, kind) for name, kind in DATASETS["psi"].items()}
    row |= {"model": np.array([subject.model_id]), "ts": np.array([START + hour * HOUR])}
    row |= {"output": np.array([output]), "state": np.array([state])}
    row |= {name: np.array([value]) for name, value in numbers.items()}
    pending = event_store.write_psi(store, HOUR, row, float(START))
    with store.database.write() as connection:
        store.segments.commit(connection, [pending])


def at(source: ProductionSource, hour: float, *matchers: Matcher) -> dict[tuple[str, ...], float]:
    """Values by name and label values, `hour` hours after START; an instant query."""
    times = np.array([int((START + hour * HOUR) * 1000)])
    found = source.vector(matchers or (EVERYTHING,), times, Budget())
    rows = zip(found.labels, found.values[:, 0].tolist(), found.present[:, 0].tolist(), strict=True)
    return {tuple(value for _, value in labels): value for labels, value, there in rows if there}


def name(text: str) -> Matcher:
    """The matcher of a name."""
    return Matcher("__name__", "=", text)


def test_the_hours_of_a_model(store: Store) -> None:
    """Every evaluation is there at the end of its hour, until the next one has had time to be made."""
    fraud = model(store)
    evaluated(store, fraud, 1, State.OK, psi=0.1, adjusted=0.05, lower=0.01, upper=0.2, limit=0.3)
    evaluated(store, fraud, 2, State.CRITICAL, psi=0.5, adjusted=0.4, lower=0.3, upper=0.6, limit=0.3)
    ours = source(store)
    assert at(ours, 0.9) == {}
    assert at(ours, 1.0) == {
        ("sentinel_model_psi", "fraud", "default"): 0.1,
        ("sentinel_model_psi_adjusted", "fraud", "default"): 0.05,
        ("sentinel_model_psi_lower", "fraud", "default"): 0.01,
        ("sentinel_model_psi_upper", "fraud", "default"): 0.2,
        ("sentinel_model_psi_limit", "fraud", "default"): 0.3,
        ("sentinel_model_state", "fraud", "default"): 0.0,
        ("sentinel_model_evaluated_timestamp_seconds", "fraud", "default"): START + HOUR,
    }
    psi = name("sentinel_model_psi")
    key = ("sentinel_model_psi", "fraud", "default")
    assert [at(ours, hour, psi).get(key) for hour in (1.99, 2.0, 3.0, 3.05, 3.1)] == [0.1, 0.5, 0.5, 0.5, None]


def test_a_model_is_its_worst_output(store: Store) -> None:
    """The output that /metrics shows: the worse state, then the higher PSI; one without a verdict hides none."""
    fraud = model(store)
    evaluated(store, fraud, 1, State.WARNING, 0, psi=0.2, adjusted=0.15)
    evaluated(store, fraud, 1, State.CRITICAL, 1, psi=0.1, adjusted=0.05)
    evaluated(store, fraud, 1, State.NO_DATA, 2, psi=np.nan, adjusted=np.nan)
    evaluated(store, fraud, 2, State.OK, 0, psi=0.2, adjusted=0.15)
    evaluated(store, fraud, 2, State.OK, 1, psi=0.3, adjusted=0.1)
    both = Matcher("__name__", "=~", "sentinel_model_(psi|state)")
    assert list(at(source(store), 1, both).values()) == [0.1, 2.0]
    assert list(at(source(store), 2, both).values()) == [0.2, 0.0]


def test_an_hour_without_a_verdict_ends_the_psi(store: Store) -> None:
    """Too few events: the state says so, and yesterday's PSI is not shown as today's."""
    fraud = model(store)
    evaluated(store, fraud, 1, State.OK, psi=0.1, adjusted=0.05)
    nothing = dict.fromkeys(("psi", "adjusted", "lower", "upper", "limit"), np.nan)
    evaluated(store, fraud, 2, State.INSUFFICIENT_DATA, **nothing)
    assert at(source(store), 2) == {
        ("sentinel_model_state", "fraud", "default"): 3.0,
        ("sentinel_model_evaluated_timestamp_seconds", "fraud", "default"): START + 2 * HOUR,
    }
    raw = source(store).samples([name("sentinel_model_psi")], START * 1000, (START + 2 * HOUR) * 1000, Budget())
    assert is_stale(raw.values).tolist() == [False, True]
    assert raw.times.tolist() == [(START + HOUR) * 1000, (START + 2 * HOUR) * 1000]


def test_an_hour_evaluated_again_counts_once(store: Store) -> None:
    """Late events: the newest evaluation of an hour is the one that is shown."""
    fraud = model(store)
    evaluated(store, fraud, 1, State.OK, psi=0.1)
    evaluated(store, fraud, 1, State.OK, psi=0.2)
    raw = source(store).samples([name("sentinel_model_psi")], 0, (START + 2 * HOUR) * 1000, Budget())
    assert raw.values.tolist() == [0.2]


def test_matchers_choose_models(store: Store) -> None:
    """By project and model; only what is asked for is there, in either form of a query."""
    with store.database.write() as connection:
        other = model_store.add_project(connection, "shop", 0.0)
    for subject in (model(store), model(store, "churn"), model(store, "fraud", other)):
        evaluated(store, subject, 1, State.OK, psi=subject.model_id or 0)
    psi, ours = name("sentinel_model_psi"), source(store)
    assert list(at(ours, 1, psi, Matcher("model", "=", "fraud"))) == [
        ("sentinel_model_psi", "fraud", "default"),
        ("sentinel_model_psi", "fraud", "shop"),
    ]
    assert at(ours, 1, psi, Matcher("model", "!~", "f.*"), Matcher("pod", "=", "")) == {
        ("sentinel_model_psi", "churn", "default"): 2.0
    }
    assert at(ours, 1, Matcher("__name__", "=", "up")) == at(ours, 1, psi, Matcher("pod", "!=", "")) == {}
    assert len(ours.series([psi], 0, 2**53, Budget())) == 3


def test_a_project_sees_its_own(store: Store) -> None:
    """Neither models nor incidents of another project are there for whoever may see one project only."""
    with store.database.write() as connection:
        shop = model_store.add_project(connection, "shop", 0.0)
        for subject in (situations.model(connection, "fraud"), situations.model(connection, "churn", shop)):
            situations.opened(connection, subject, "critical", 1)
    for subject in (Subject(1, "psi", "fraud", model_id=1), Subject(shop, "psi", "churn", model_id=2)):
        evaluated(store, subject, 1, State.OK, psi=0.1)
    ours = source(store, START + 2 * HOUR, frozenset({"shop"}))
    assert {labels[-3:] for labels in at(ours, 1, name("sentinel_incidents"))} == {("shop", "critical", "open")}
    assert {key[-1] for key in at(ours, 1, Matcher("__name__", "=~", "sentinel_model.*"))} == {"shop"}
    seen = {dict(labels)["project"] for labels in ours.series([EVERYTHING], 0, 2**53, Budget())}
    assert seen == {"shop"}
    assert source(store, projects=frozenset()).series([EVERYTHING], 0, 2**53, Budget()) == []


def test_the_series_of_a_time(store: Store) -> None:
    """Only what is shown then: no PSI of hours without a verdict, no model that is not evaluated yet, or any more."""
    fraud = model(store)
    evaluated(store, fraud, 1, State.NO_DATA, psi=np.nan, adjusted=np.nan, lower=np.nan, upper=np.nan, limit=np.nan)
    evaluated(store, model(store, "churn"), 3, State.OK, psi=0.1)
    ours = source(store)

    def found(first: int, last: int) -> set[tuple[str, str]]:
        span = ((START + first * HOUR) * 1000, (START + last * HOUR) * 1000)
        series = map(dict, ours.series([EVERYTHING], *span, Budget()))
        return {(one["__name__"].removeprefix("sentinel_model_"), one["model"]) for one in series}

    assert found(0, 2) == {("state", "fraud"), ("evaluated_timestamp_seconds", "fraud")}
    assert len(found(3, 3)) == len(found(4, 4)) == 7
    assert found(5, 6) == set()


def test_incidents_over_time(store: Store) -> None:
    """From opening to the end by state and severity, as many as there are; what was open goes when it is resolved."""
    with store.database.write() as connection:
        subject = situations.model(connection, "fraud")
        opened = situations.opened(connection, subject, "warning", 1)
        worse = situations.evaluated(connection, opened, "critical", 2)
        situations.acted(connection, worse, "acknowledge", 3)
        other = situations.opened(connection, situations.model(connection, "churn"), "critical", 3)
        situations.acted(connection, other, "resolve", 4)
    ours = source(store, START + 5 * HOUR)
    incidents = name("sentinel_incidents")
    fraud = ("sentinel_incidents", "psi", "fraud", "default")
    churn = ("sentinel_incidents", "psi", "churn", "default")
    assert at(ours, 0.99, incidents) == {}
    assert at(ours, 1, incidents) == {(*fraud, "warn", "open"): 1.0}
    assert at(ours, 2.5, incidents) == {(*fraud, "critical", "open"): 1.0}
    assert at(ours, 3.5, incidents) == {(*fraud, "critical", "acknowledged"): 1.0, (*churn, "critical", "open"): 1.0}
    assert at(ours, 5, incidents) == {(*fraud, "critical", "acknowledged"): 1.0, (*churn, "critical", "resolved"): 1.0}
    assert at(ours, 5.1, incidents) == {}  # the future


def test_incidents_now_are_those_of_metrics(store: Store) -> None:
    """The newest values have the names, labels and counts that /metrics has."""
    with store.database.write() as connection:
        fraud = situations.model(connection, "fraud")
        for hour in (1, 2):
            found = situations.acted(
                connection, situations.opened(connection, fraud, "critical", hour), "resolve", hour
            )
            situations.acted(connection, found, "close", hour)
        ids = watch_store.sync_watches(connection, [("latency-1", "latency")], START)
        situations.opened(connection, Subject(1, "forecast", "latency", watch_id=ids["latency-1"]), "warning", 3)
    evaluated(store, fraud, 4, State.OK, psi=0.25)
    families = per_model(SnapshotLoader(store, SentinelConfig()).load(START).production)
    expected = {
        tuple(value for _, value in sorted({"__name__": one.name, **one.labels}.items())): one.value
        for family in families
        for one in family.samples
        if one.name == "sentinel_incidents"
    }
    assert at(source(store, START + 4 * HOUR), 4, name("sentinel_incidents")) == expected
    assert sorted(expected.values()) == [1.0, 2.0]


def test_a_range_of_incidents_has_a_sample_each_minute(store: Store) -> None:
    """As if scraped: functions over ranges find an incident that has been open for days, and no time after its end."""
    with store.database.write() as connection:
        opened = situations.opened(connection, situations.model(connection, "fraud"), "critical", 1)
        situations.acted(connection, opened, "resolve", 50)
    raw = source(store).samples(
        [name("sentinel_incidents"), Matcher("state", "=", "open")],
        (START + 49 * HOUR) * 1000,
        (START + 51 * HOUR) * 1000,
        Budget(),
    )
    assert len(raw.labels) == 1
    assert (raw.times - (START + 49 * HOUR) * 1000).tolist() == [60_000 * minute for minute in range(1, 60)]


def test_a_clock_that_was_wrong(store: Store) -> None:
    """Steps of an incident stay in their order, and none is in the future."""
    with store.database.write() as connection:
        fraud = situations.model(connection, "fraud")
        opened = situations.opened(connection, fraud, "critical", 10)
        situations.acted(connection, opened, "resolve", 5)
        situations.opened(connection, Subject(1, "silence", "fraud", model_id=1), "warning", 90)
    ours = source(store, START + 20 * HOUR)
    states = Matcher("__name__", "=", "sentinel_incidents")
    assert [key[-1] for key in at(ours, 12, states)] == ["resolved"]
    assert at(ours, 9, states) == {}
    assert sorted(key[1] for key in at(ours, 20, states)) == ["psi", "silence"]


def test_too_much_is_refused(store: Store) -> None:
    """More hours of more models than a query may have are not read."""
    evaluated(store, model(store), 1, State.OK)
    with pytest.raises(ExecutionError, match="too many samples"):
        source(store).samples([EVERYTHING], 0, 2**53, Budget(cells=10_000))


def test_metadata(store: Store) -> None:
    """Every name is a gauge with the help of /metrics."""
    found: dict[str, Any] = dict(source(store).metadata())
    assert found.keys() == NAMES
    assert found["sentinel_model_psi"] == ("gauge", "PSI of the model's worst output, of the newest evaluation.")

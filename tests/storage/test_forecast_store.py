"""Forecasts and scores: every row by its target time, the newest issue of each key."""

import numpy as np
import pytest

from sentinel_core.storage import forecast_store, segments
from sentinel_core.storage.compaction import compact
from sentinel_core.storage.segments import ADDED_LATER, DATASETS, SegmentGoneError
from sentinel_core.storage.store import Store
from tests.storage.samples import DAY, NOW, START, STEP, commit, forecasts


def issue(store: Store, **arguments: object) -> list[int]:
    rows = forecasts(**{"watch": 1, "fingerprints": [10, 20], "origin": START, "horizon": 3, **arguments})
    return commit(store, forecast_store.write_forecasts(store, STEP, rows, now=NOW))


def score(store: Store, ts: int, mae: float, fingerprint: int = 10) -> None:
    rows = {"watch": [1], "fp": [fingerprint], "ts": [ts], "version": [1], "mae": [mae], "scaled": [mae / 2]}
    rows |= {"naive": [mae], "seasonal": [mae], "anomaly": [mae]}
    columns = {name: np.array(values) for name, values in rows.items()}
    commit(store, forecast_store.write_scores(store, STEP, columns, now=NOW))


def test_what_an_earlier_release_wrote_is_read_beside_what_this_one_writes(store: Store) -> None:
    """A column that its files do not have is NaN, alone or among others, and after compaction too."""
    older = {name: kind for name, kind in DATASETS["scores"].items() if name not in ADDED_LATER}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(segments.DATASETS, "scores", older)
        score(store, START, 1.0)
    assert np.isnan(forecast_store.read_scores(store, STEP, START, START)["anomaly"]).all()
    score(store, START + STEP, 2.0)
    for _ in range(2):
        found = forecast_store.read_scores(store, STEP, START, START + STEP)
        assert found["mae"].tolist() == [1.0, 2.0]
        np.testing.assert_array_equal(found["anomaly"], [np.nan, 2.0])
        compact(store, START + 7200)
    assert len(store.segments.segments("scores")) == 1


def test_forecasts_are_found_by_their_target_time(store: Store) -> None:
    """Of the issues of five ticks, those that speak of one time come back: one per series and lead."""
    for tick in range(5):
        issue(store, origin=START + tick * STEP, mean=float(tick))
    found = forecast_store.forecasts_for(store, STEP, START + 4 * STEP, START + 4 * STEP)
    assert found["lead"].tolist() == [3, 2, 1] * 2
    assert found["mean"].tolist() == [1.0, 2.0, 3.0] * 2
    assert found["fp"].tolist() == [10] * 3 + [20] * 3
    assert {name: column.dtype for name, column in found.items()} == {
        name: np.dtype(kind) for name, kind in forecast_store.DATASETS["forecasts"].items()
    }


def test_a_later_issue_replaces_the_earlier_of_the_same_origin(store: Store) -> None:
    """After a promotion the same origin is issued anew: only the newer version is scored."""
    issue(store, mean=1.0, version=1)
    issue(store, mean=2.0, version=2, fingerprints=[20])
    found = forecast_store.forecasts_for(store, STEP, START + STEP, START + STEP)
    assert found["fp"].tolist() == [10, 20]
    assert found["version"].tolist() == [1, 2]


def test_replays_stay_out_of_live_answers(store: Store) -> None:
    """mode tells them apart, and both can be asked for."""
    issue(store, mean=1.0)
    issue(store, mean=9.0, mode=forecast_store.REPLAY)
    span = (START + STEP, START + STEP)
    assert forecast_store.forecasts_for(store, STEP, *span)["mean"].tolist() == [1.0, 1.0]
    assert forecast_store.forecasts_for(store, STEP, *span, mode=forecast_store.REPLAY)["mean"].tolist() == [9.0, 9.0]
    both = forecast_store.read_forecasts(store, STEP, ts_range=span, mode=None)
    assert sorted(both["mean"].tolist()) == [1.0, 1.0, 9.0, 9.0]


def test_every_condition_narrows(store: Store) -> None:
    """By watch, series, origin and target time, in any combination; empty lists match nothing."""
    issue(store)
    issue(store, watch=2, fingerprints=[30], origin=START + STEP)

    def count(**conditions: object) -> int:
        return len(forecast_store.read_forecasts(store, STEP, **conditions)["fp"])

    assert count() == 9
    assert count(watch_ids=[2]) == 3
    assert count(fingerprints=np.array([20, 30])) == 6
    assert count(origin=START) == 6
    assert count(ts_range=(START + 4 * STEP, START + 9 * STEP)) == 1
    assert count(watch_ids=[1], fingerprints=[20], origin=START, ts_range=(START, START + STEP)) == 1
    assert count(watch_ids=[]) == count(fingerprints=[]) == 0


def test_missing_bounds_stay_missing(store: Store) -> None:
    """NaN is a value here: a series without bounds has none after the round trip."""
    issue(store, lower=np.nan, upper=np.nan)
    found = forecast_store.read_forecasts(store, STEP)
    assert np.isnan(found["lower"]).all()
    assert np.isfinite(found["mean"]).all()


def test_one_segment_is_read_by_its_id(store: Store) -> None:
    """What watch_state names: all of it, or one watch and origin; a replaced one says so."""
    (one,) = issue(store)
    (two,) = issue(store, watch=2)
    assert set(forecast_store.read_segment(store, two)["watch"].tolist()) == {2}
    assert len(forecast_store.read_segment(store, one, watch_ids=[1], origin=START)["fp"]) == 6
    assert len(forecast_store.read_segment(store, one, watch_ids=[2])["fp"]) == 0
    with store.database.write() as connection:
        store.segments.drop(connection, [one], NOW)
    with pytest.raises(SegmentGoneError):
        forecast_store.read_segment(store, one)


def test_a_live_issue_is_one_file_and_a_replay_one_per_day(store: Store) -> None:
    """The id that a tick stores in watch_state is unambiguous; days can be compacted apart."""
    assert len(issue(store, horizon=2000)) == 1
    parts = [forecasts(1, [10], START + DAY - 2 * STEP + tick * STEP, 3) for tick in range(3)]
    rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    pending = forecast_store.write_forecasts(store, STEP, rows, now=NOW)
    assert [part.rows for part in pending.parts] == [3, 6]  # by the day of lead 1


def test_a_later_score_of_the_same_time_wins(store: Store) -> None:
    """Late samples are scored again; the newer score counts, in time order."""
    score(store, START + STEP, 5.0)
    score(store, START, 1.0)
    score(store, START + STEP, 2.0)
    found = forecast_store.read_scores(store, STEP, START, START + STEP)
    assert found["ts"].tolist() == [START, START + STEP]
    assert found["mae"].tolist() == [1.0, 2.0]


def test_scores_are_read_by_span_and_series(store: Store) -> None:
    """Both ends are inclusive; no series, no scores."""
    for tick in range(4):
        score(store, START + tick * STEP, float(tick))
        score(store, START + tick * STEP, -float(tick), fingerprint=20)
    found = forecast_store.read_scores(store, STEP, START + STEP, START + 2 * STEP, fingerprints=[10])
    assert found["mae"].tolist() == [1.0, 2.0]
    assert len(forecast_store.read_scores(store, STEP, START, NOW)["mae"]) == 8
    assert len(forecast_store.read_scores(store, STEP, START, NOW, fingerprints=[])["mae"]) == 0


def test_an_empty_store_answers_with_empty_columns(store: Store) -> None:
    """Right names and types, no rows."""
    found = forecast_store.forecasts_for(store, STEP, START, NOW)
    assert set(found) == set(forecast_store.FORECAST_COLUMNS)
    assert found["fp"].dtype == np.int64
    assert len(found["fp"]) == 0

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentinel_core import drift
from sentinel_core.windows import Window


def _rows(seed: int, n: int = 400) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "watch": rng.integers(1, 3, n).astype(np.int32),
        "fingerprint": rng.choice([-5, 7, 11, 99], n),
        "timestamp": rng.integers(0, 12, n) * 60,
        "version": rng.integers(1, 3, n).astype(np.int32),
        "forecast": rng.normal(size=n),
        "training_mae": rng.uniform(0.5, 2, n),
        "serving": np.zeros(n, bool),
    }


def _actuals(seed: int) -> Window:
    rng = np.random.default_rng(seed + 1)
    values = rng.normal(size=(3, 10))
    values[rng.random((3, 10)) < 0.2] = np.nan
    return Window(np.array([-5, 7, 11]), np.arange(10) * 60, values, 60)


def _slow_scores(rows: dict[str, np.ndarray], actuals: Window) -> dict[tuple[int, int, int], tuple[int, float, float]]:
    """One row at a time, as the definition reads."""
    groups: dict[tuple[int, int, int], list[tuple[bool, int, float, float]]] = {}
    for k in range(len(rows["forecast"])):
        fingerprint, timestamp = int(rows["fingerprint"][k]), int(rows["timestamp"][k])
        if fingerprint not in actuals.fingerprints or timestamp not in actuals.timestamps:
            continue
        actual = actuals.values[list(actuals.fingerprints).index(fingerprint), timestamp // 60]
        if np.isnan(actual):
            continue
        error = abs(actual - rows["forecast"][k])
        key = (int(rows["watch"][k]), fingerprint, timestamp)
        serves = bool(rows["serving"][k])
        groups.setdefault(key, []).append((serves, int(rows["version"][k]), error, error / rows["training_mae"][k]))
    result = {}
    for key, found in groups.items():
        chosen = max((serves, version) for serves, version, _, _ in found)
        mine = [(error, scaled) for serves, version, error, scaled in found if (serves, version) == chosen]
        result[key] = (chosen[1], np.mean([e for e, _ in mine]), np.mean([s for _, s in mine]))
    return result


@pytest.mark.parametrize("seed", range(5))
def test_scores_equal_the_slow_oracle(seed: int) -> None:
    """Each forecast is compared with the actual at its own time, averaged over the leads of the version that serves."""
    rows, actuals = _rows(seed), _actuals(seed)
    served = {(w, f): 1 + (w + f) % 2 for w in (1, 2) for f in (-5, 7, 11, 99)}
    rows["serving"] = np.array(
        [served[w, f] == v for w, f, v in zip(rows["watch"], rows["fingerprint"], rows["version"], strict=True)]
    )
    scores = drift.score(**rows, actuals=actuals)
    expected = _slow_scores(rows, actuals)
    found = {
        (int(w), int(f), int(t)): (int(v), m, s)
        for w, f, t, v, m, s in zip(
            scores.watch,
            scores.fingerprint,
            scores.timestamp,
            scores.version,
            scores.mae,
            scores.scaled,
            strict=True,
        )
    }
    assert found.keys() == expected.keys()
    for key, (version, mae, scaled) in expected.items():
        assert found[key][0] == version
        assert found[key][1:] == pytest.approx((mae, scaled))


def test_nothing_to_score_is_no_error() -> None:
    """Forecasts without any actual give no scores."""
    rows = _rows(0)
    empty = Window(np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, 0)), 60)
    assert len(drift.score(**rows, actuals=empty).mae) == 0


@given(st.integers(1, 8), st.lists(st.one_of(st.none(), st.floats(0, 10)), min_size=1, max_size=20))
def test_rolling_mean_is_over_the_last_scored_steps(window: int, errors: list[float | None]) -> None:
    """Gaps do not count: the mean is over the last `window` steps that were scored."""
    row = np.array([[np.nan if error is None else error for error in errors]])
    mean, count = drift.rolling_mean(row, np.array([window]))
    last = [error for error in errors if error is not None][-window:]
    assert count[0] == len(last)
    assert mean[0] == pytest.approx(np.mean(last)) if last else np.isnan(mean[0])


def test_severity_at_its_thresholds() -> None:
    """Below finetune none, from finetune low, from retrain high; no verdict before enough steps are scored."""
    rolling = np.array([0.0999, 0.1, 0.2999, 0.3, 5.0, np.nan])
    scored = np.array([60, 60, 60, 60, drift.MIN_SCORED - 1, 0])
    judged = drift.judged(scored, np.full(6, 60), np.zeros(6, bool))
    found = drift.severity(rolling, judged, np.full(6, 0.1), np.full(6, 0.3), np.ones(6, bool))
    assert [drift.SEVERITIES[level] for level in found] == ["none", "low", "low", "high", "none", "none"]

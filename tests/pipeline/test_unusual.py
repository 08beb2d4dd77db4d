"""How unusual each step is, from stored rows, against a slow loop."""

import numpy as np

from sentinel_core import anomaly
from sentinel_core.pipeline.unusual import unusual
from sentinel_core.windows import Window

STEP, FIRST = 60, 6_000
TIMES = FIRST + STEP * np.arange(6)
QUIET = {1: 4, 2: 2}


def test_scores_are_those_of_a_loop_over_series_and_times() -> None:
    """Two watches of other horizons and quiets, gaps, missed forecasts, late steps; alarms before keep quiet."""
    rng = np.random.default_rng(4)
    fingerprints = np.array([3, 5, 8])
    values = rng.normal(0, 4, (3, len(TIMES)))
    values[rng.random(values.shape) < 0.1] = np.nan
    rows = [
        {"watch": watch, "fp": fp, "ts": ts, "lead": lead, "mean": rng.normal(), "version": rng.choice([0, 1, -2])}
        for ts in TIMES.tolist()
        for watch, leads in ((1, 3), (2, 2))
        for fp in fingerprints.tolist()
        for lead in range(1, leads + 1)
        if rng.random() < 0.9
    ]
    forecasts = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    forecasts["lower"] = forecasts["mean"] - rng.exponential(2, len(rows))
    forecasts["upper"] = forecasts["mean"] + rng.exponential(2, len(rows))
    said = {
        (watch, fp, ts): float(rng.exponential(1.5))
        for watch in (1, 2)
        for fp in fingerprints.tolist()
        for ts in range(FIRST - 5 * STEP, FIRST + 2 * STEP, STEP)
        if rng.random() < 0.7
    }
    keys = [np.array(column) for column in zip(*said, strict=True)]
    stored = {**dict(zip(("watch", "fp", "ts"), keys, strict=True)), "anomaly": np.array(list(said.values()))}

    wanted = np.array([(watch, fp, ts) for watch in (1, 2) for fp in fingerprints for ts in TIMES]).T
    expected = []
    for watch, fp, ts in wanted.T.tolist():
        actual = values[list(fingerprints).index(fp), TIMES.tolist().index(ts)]
        errors, widths = np.full((1, 3), np.nan), np.full((1, 3), np.nan)
        for k in np.flatnonzero((forecasts["watch"] == watch) & (forecasts["fp"] == fp) & (forecasts["ts"] == ts)):
            if forecasts["version"][k]:
                error = actual - forecasts["mean"][k]
                errors[0, forecasts["lead"][k] - 1] = error
                about = [forecasts[name][k] for name in ("mean", "lower", "upper")]
                widths[0, forecasts["lead"][k] - 1] = anomaly.widths(actual, *about)
        steps = range(ts - QUIET[watch] * STEP, ts, STEP)
        earlier = np.array([[said.get((watch, fp, one), np.nan) for one in steps]])
        (score,) = anomaly.scores(errors, widths, earlier)
        if np.isfinite(score):
            said[watch, fp, ts] = float(score)
        expected.append(said.get((watch, fp, ts), np.nan))
    actuals = Window(fingerprints, TIMES, values, STEP)
    found = unusual((wanted[0], wanted[1], wanted[2]), forecasts, actuals, stored, QUIET)
    np.testing.assert_allclose(found, expected)
    assert np.isfinite(found).sum() > 20
    assert (found > 1).any()


def test_a_last_value_in_place_of_a_forecast_is_no_measure() -> None:
    """A series that no version could forecast has no score, however far it moves."""
    row = {"watch": 1, "fp": 3, "ts": FIRST, "lead": 1, "mean": 1.0, "lower": 1.0, "upper": 1.0, "version": 0}
    forecasts = {name: np.array([value]) for name, value in row.items()}
    nothing = {name: np.empty(0, np.int64) for name in ("watch", "fp", "ts", "anomaly")}
    actuals = Window(np.array([3]), TIMES[:1], np.array([[9.0]]), STEP)
    wanted = forecasts["watch"], forecasts["fp"], forecasts["ts"]
    assert np.isnan(unusual(wanted, forecasts, actuals, nothing, QUIET)).all()
    assert np.isnan(unusual(wanted, {**forecasts, "fp": np.empty(0)}, actuals, nothing, QUIET)).all()

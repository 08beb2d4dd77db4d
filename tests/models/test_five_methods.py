"""The five methods put a series together again from rows of features, and delegate."""

from pathlib import Path

import numpy as np
import pytest

from sentinel_core import features
from sentinel_core.errors import ArtifactError, ModelError
from sentinel_core.models import (
    ARIMAModel,
    AutoModel,
    BaseModel,
    BatchModel,
    ExponentialSmoothingModel,
    LinearTrendModel,
    SeasonalRidgeModel,
    SGDRegressorModel,
)
from sentinel_core.windows import Window

BUILT_INS = (LinearTrendModel, ExponentialSmoothingModel, ARIMAModel, SGDRegressorModel, SeasonalRidgeModel, AutoModel)
TIMESTAMPS = 1_706_000_040 + 60 * np.arange(200)
SERIES = np.cumsum(np.random.default_rng(1).normal(size=200))


def window(series: np.ndarray = SERIES) -> Window:
    return Window(np.zeros(1, np.int64), TIMESTAMPS[: len(series)], series[None], 60)


def rows(series: np.ndarray, lookback: int) -> tuple[np.ndarray, np.ndarray]:
    built = features.build(window(series), lookback)
    return built.X[0], built.y[0]


@pytest.mark.parametrize("model_class", BUILT_INS)
def test_a_built_in_is_both_kinds_of_model(model_class: type[BaseModel]) -> None:
    """A built-in is a BaseModel for people and a BatchModel for the engine."""
    model = model_class("1m", "5m", "10m")
    assert isinstance(model, BaseModel)
    assert isinstance(model, BatchModel)


@pytest.mark.parametrize("model_class", BUILT_INS)
def test_rows_and_windows_teach_the_same(model_class: type[BatchModel]) -> None:
    """fit and predict on a series' rows forecast what fit_window and predict_window do on the series."""
    by_rows, by_window = model_class("1m", "5m", "10m"), model_class("1m", "5m", "10m")
    X, y = rows(SERIES, 10)
    by_rows.fit(X, y)
    by_window.fit_window(window())
    expected = by_window.predict_window(window().newest(10), 5)[0]
    newest = features.newest_row(window().newest(10), 10)
    tolerance = 0.05 * SERIES.std() if model_class is SGDRegressorModel else 1e-9  # dates differ, so do days
    np.testing.assert_allclose(by_rows.predict(newest).values, expected, atol=tolerance)


def test_the_series_comes_back_with_its_time_of_day() -> None:
    """Rows cut from a window give its values, its hour and its weekday back."""
    model = LinearTrendModel("1m", "5m", "10m")
    found = model._series(*rows(SERIES, 10))
    np.testing.assert_array_equal(found.values[0], SERIES)
    week = 7 * 86_400
    np.testing.assert_array_equal(found.timestamps % week, (TIMESTAMPS + found.timestamps[0] - TIMESTAMPS[0]) % week)
    assert (found.timestamps[0] - TIMESTAMPS[0]) % week == 0


def test_rows_that_do_not_follow_leave_a_gap() -> None:
    """Two stretches of rows are two stretches of the series, as long apart as nothing is known of either."""
    model = LinearTrendModel("1m", "5m", "4m")
    X, y = rows(np.arange(40.0), 4)
    found = model._series(np.vstack([X[:5], X[20:25]]), np.concatenate([y[:5], y[20:25]])).values[0]
    np.testing.assert_array_equal(found, [*np.arange(9.0), *[np.nan] * 4, *np.arange(20.0, 29.0)])


def test_lags_alone_are_enough() -> None:
    """Rows may be the lags without mean, spread and time."""
    model = LinearTrendModel("1m", "3m", "4m")
    X, y = rows(np.arange(40.0), 4)
    model.fit(X[:, :4], y)
    np.testing.assert_allclose(model.predict(X[-1:, :4]).values, [39.0, 40.0, 41.0])


def test_a_fit_reports_its_one_step_error() -> None:
    """The MAE of the last value on a random walk is the mean absolute step, and ARIMA(0, 1, 0) is that forecast."""
    model = ARIMAModel("1m", "1m", "10m", p=0, d=1, q=0)
    X, y = rows(SERIES, 10)
    result = model.fit(X, y)
    assert result.training_policy == "retrain"
    assert result.n_samples == 190
    assert result.mae == pytest.approx(np.abs(np.diff(SERIES[9:])).mean(), rel=0.05)
    assert model.partial_fit(X[-30:], y[-30:]).training_policy == "finetune"


def test_a_first_partial_fit_is_a_fit() -> None:
    """partial_fit on a new model learns from scratch."""
    assert LinearTrendModel("1m", "5m", "10m").partial_fit(*rows(SERIES, 10)).training_policy == "retrain"


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        (np.ones((5, 3)), np.ones(5), "at least 10 lags"),
        (np.ones((0, 16)), np.ones(0), "at least 10 lags"),
        (np.ones((5, 16)), np.ones(4), "one value for each of the 5 rows"),
    ],
)
def test_wrong_shapes_are_named(X: np.ndarray, y: np.ndarray, message: str) -> None:
    """Rows of the wrong shape raise a ModelError that says which shape was wanted."""
    with pytest.raises(ModelError, match=message):
        LinearTrendModel("1m", "5m", "10m").fit(X, y)


def test_predict_wants_one_row_and_a_fitted_model() -> None:
    """Neither two rows nor an unfitted model are guessed about."""
    model = LinearTrendModel("1m", "5m", "10m")
    with pytest.raises(ModelError, match="not fitted"):
        model.predict(np.ones((1, 16)))
    with pytest.raises(ModelError, match="one row"):
        model.predict(np.ones((2, 16)))


def test_foreign_windows_are_refused() -> None:
    """A window of other series than the model's raises instead of mixing rows up."""
    model = LinearTrendModel("1m", "5m", "10m")
    model.fit_window(window())
    with pytest.raises(ModelError, match="take, put or adopt"):
        model.predict_window(Window(np.array([5]), TIMESTAMPS, SERIES[None], 60), 5)


def test_load_refuses_what_is_not_its_own(tmp_path: Path) -> None:
    """A missing, a broken and another model's file raise ArtifactError and leave the model as it was."""
    model = LinearTrendModel("1m", "5m", "10m")
    model.fit(*rows(SERIES, 10))
    path = tmp_path / "model"
    with pytest.raises(ArtifactError, match="does not exist"):
        model.load(str(path))
    path.write_bytes(b"not a model")
    with pytest.raises(ArtifactError, match="train and save it again"):
        model.load(str(path))
    model.save(str(path))
    for other in (LinearTrendModel("1m", "6m", "10m"), ExponentialSmoothingModel("1m", "5m", "10m")):
        with pytest.raises(ArtifactError, match="construct the model as it was saved"):
            other.load(str(path))

"""The documented example of a person's own model: it must run as it stands, by hand and in the engine."""

import dataclasses
import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from joblib.externals.loky import get_reusable_executor

from sentinel_core import features
from sentinel_core.config import WatchConfig
from sentinel_core.models import BatchModel, catalogue, conformance
from sentinel_core.windows import Window


@pytest.fixture(scope="module")
def watch() -> Iterator[WatchConfig]:
    """A watch that names the example's class by its import path."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        get_reusable_executor(max_workers=2).shutdown(kill_workers=True)
        yield WatchConfig(
            metric="up", model_class="seasonal_naive:SeasonalNaive", granularity="1h", horizon="6h", lookback="4h"
        )
    get_reusable_executor(max_workers=2).shutdown(kill_workers=True)


def daily(n: int, samples: int = 100) -> Window:
    timestamps = 3_600 * (400_000 + np.arange(samples))
    level = 10.0 ** np.arange(n)[:, None]
    return Window(np.arange(n), timestamps, level * np.sin(2 * np.pi * timestamps / 86_400), 3_600)


def test_the_example_by_hand(watch: WatchConfig, tmp_path: Path) -> None:
    """Fitted on rows of features, saved and loaded, it repeats the day."""
    window = daily(1)
    rows = features.build(window.columns(slice(0, 90)), 4)
    model = importlib.import_module("seasonal_naive").SeasonalNaive("1h", "6h", "4h")
    assert model.fit(rows.X[0], rows.y[0]).training_policy == "retrain"
    assert model.partial_fit(rows.X[0], rows.y[0]).mae < 1e-9
    model.save(str(tmp_path / "model"))
    again = importlib.import_module("seasonal_naive").SeasonalNaive("1h", "6h", "4h")
    again.load(str(tmp_path / "model"))
    row = features.newest_row(window.columns(slice(0, 90)), 4)
    np.testing.assert_allclose(again.predict(row).values, window.values[0, 90:96], atol=1e-9)


def test_the_example_in_the_engine(watch: WatchConfig) -> None:
    """Named in a watch it is fitted and forecasts for every series, from any later origin."""
    window = daily(3)
    model = catalogue.build(watch)
    assert isinstance(model, BatchModel)
    model.fit_window(window.columns(slice(0, 80)))
    forecast = model.predict_window(window.columns(slice(0, 90)), 6)
    np.testing.assert_allclose(forecast, window.values[:, 90:96], rtol=1e-9, atol=1e-7)


def test_the_example_conforms(watch: WatchConfig) -> None:
    """The example passes the suite that a person is told to run."""
    conformance.check_model(importlib.import_module("seasonal_naive").SeasonalNaive, season="10m")


# The example repeats its season whatever the level is now, so it cannot start from a level it has never seen.
SUITE = [check for check in conformance.BATCH_CHECKS if check is not conformance.predicts_from_now]


@pytest.mark.parametrize("check", SUITE, ids=lambda check: str(check.__name__))
def test_a_wrapped_model_conforms(watch: WatchConfig, check: Callable[[Any], None]) -> None:
    """The adapter makes of five methods a model like the engine's own."""
    minutes = dataclasses.replace(watch, granularity="1m", horizon="5m", lookback="10m", model_params={"season": "10m"})
    check(lambda: catalogue.build(minutes))

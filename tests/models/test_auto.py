"""Each series has the model that does best on its own past, and goes on with it."""

from typing import Any

import numpy as np
import pytest

from sentinel_core import registry
from sentinel_core.config import WatchConfig
from sentinel_core.forecasts import Fitted
from sentinel_core.models import AutoModel, BatchModel, catalogue
from sentinel_core.models.auto import CANDIDATES
from sentinel_core.models.rows import held_back_origins, knots
from sentinel_core.models.seasonal_naive import SeasonalNaive
from sentinel_core.windows import FloatArray, Window
from tests.test_registry import a_version

STEP, DAY, HORIZON = 1_800, 48, 12
START = 1_699_920_000
DEFAULT, NAIVE = CANDIDATES[0].__name__, CANDIDATES[-1].__name__


def window_of(values: FloatArray) -> Window:
    return Window(np.arange(len(values)) + 5, START + STEP * np.arange(values.shape[1]), values, STEP)


def world(days: int = 12) -> Window:
    """Two days' patterns without any noise, two lines with a little, two restless AR(2), and six of noise (seed 0)."""
    rng = np.random.default_rng(0)
    t = np.arange(days * DAY)
    pattern = np.tile(rng.normal(size=(2, DAY)), (1, days))
    lines = np.outer([0.3, -0.7], t) + rng.normal(0, 0.5, (2, len(t)))
    restless = rng.normal(size=(2, len(t)))
    for k in range(2, len(t)):
        restless[:, k] += 1.7 * restless[:, k - 1] - 0.95 * restless[:, k - 2]
    return window_of(np.concatenate([pattern, lines, restless, rng.normal(size=(6, len(t)))]))


def build() -> AutoModel:
    return AutoModel("30m", "6h", "4h")


@pytest.fixture(scope="module")
def fitted() -> AutoModel:
    model = build()
    model.fit_window(world())
    return model


def test_every_series_has_what_suits_it(fitted: AutoModel) -> None:
    """Days that repeat exactly are repeated, and where nothing is clearly better than the default it is that."""
    names = fitted.model_names.tolist()
    assert names[:2] == [NAIVE] * 2
    assert len(set(names[2:6]) - {NAIVE}) >= 2
    assert names[6:].count(DEFAULT) >= 4


def test_none_is_worse_than_the_day_before(fitted: AutoModel) -> None:
    """On the origins that were held back no series errs more than by repeating the day before."""
    window, leads = world(), knots(HORIZON)
    origins = held_back_origins(len(window.timestamps), 8, HORIZON)
    judged = build().fit_and_judge(window)
    naive = SeasonalNaive("30m", "6h", "4h")
    naive.fit_window(window)
    repeated = window.values[:, origins[:, None] + leads] - naive.forecast_from(window, origins, leads)
    assert judged is not None
    np.testing.assert_array_equal(judged[1], leads)
    assert judged.span == origins[-1] - origins[0]
    assert (np.abs(judged[0]).mean(axis=(1, 2)) <= np.abs(repeated).mean(axis=(1, 2)) + 1e-12).all()


def test_each_series_is_forecast_as_its_model_would(fitted: AutoModel) -> None:
    """Fitted on the series that have chosen it."""
    window, names = world(), fitted.model_names
    together = fitted.predict_window(window, HORIZON)
    for name in set(names.tolist()):
        mine = window.rows(np.flatnonzero(names == name))
        alone: BatchModel = catalogue.BUILT_INS.get(name, SeasonalNaive)("30m", "6h", "4h")
        alone.fit_window(mine)
        np.testing.assert_allclose(together[names == name], alone.predict_window(mine, HORIZON), rtol=1e-6)


def test_an_update_continues_each_with_its_own(fitted: AutoModel) -> None:
    """The choice stays, and every model that learns has learnt."""
    longer = world(14)
    model = fitted.take(fitted.fingerprints)
    model.update_window(longer, 2 * DAY)
    np.testing.assert_array_equal(model.model_names, fitted.model_names)
    before, after = (one.predict_window(longer, HORIZON) for one in (fitted, model))
    learns = fitted.model_names != NAIVE
    assert (np.abs(after - before).max(axis=1) > 0).tolist() == learns.tolist()


def test_rows_of_different_choices_come_together(fitted: AutoModel) -> None:
    """Series of one model put beside those of others forecast as before, in any order."""
    rows = fitted.fingerprints
    one, rest = fitted.take(rows[:2]), fitted.take(rows[2:][::-1])
    window = world()
    np.testing.assert_array_equal(one.put(rest).predict_window(window, HORIZON), fitted.predict_window(window, HORIZON))
    two = AutoModel.concat([rest, one])
    assert two.model_names.tolist() == fitted.take(two.fingerprints).model_names.tolist()


def test_it_comes_back_from_its_artifact(fitted: AutoModel) -> None:
    """With every series' choice."""
    n = len(fitted.fingerprints)
    measured: dict[str, Any] = {
        "versions": np.ones(n, np.int32), "offsets": np.zeros((n, HORIZON, 2)), "mae": np.ones((n, HORIZON))
    }  # fmt: skip
    content, sha256 = registry.dump(Fitted.of(fitted, measured), fitted.feature_names)
    names = '["' + '", "'.join(fitted.feature_names) + '"]'
    version = a_version(1, sha256=sha256, bytes=len(content), feature_names=names)
    watch = WatchConfig(metric="up", model_class="auto", granularity="30m", horizon="6h", lookback="4h")
    again = registry.load(content, version, lambda *_: catalogue.build(watch)).model
    assert again.model_names.tolist() == fitted.model_names.tolist()
    np.testing.assert_array_equal(again.predict_window(world(), HORIZON), fitted.predict_window(world(), HORIZON))


def test_short_names_mean_the_same() -> None:
    """`auto` is the model's name for short."""
    short, long = (WatchConfig(metric="up", model_class=name) for name in ("auto", "AutoModel"))
    assert short.spec_digest == long.spec_digest
    assert isinstance(catalogue.build(short), AutoModel)

"""Every model on a real Prometheus' past: from the store where it is there, in workers that end when told to."""

import importlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from joblib.externals.loky import get_reusable_executor

from sentinel_core import WatchConfig, backtest
from sentinel_core.backtest import NAIVE, folds
from sentinel_core.models.catalogue import BUILT_INS
from sentinel_core.models.seasonal_naive import SeasonalNaive
from sentinel_core.pipeline import backtesting
from sentinel_core.pipeline.reports import BacktestReport
from sentinel_core.storage import watch_store, windows_store
from tests.moved_world import World

DAY = 86_400
Watch = Callable[..., WatchConfig]


@pytest.fixture
def once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One training of each model is enough."""
    monkeypatch.setattr(backtest, "FOLDS", 1)


def evaluated(world: World, *watches: WatchConfig, days: float = 2.0) -> list[BacktestReport]:
    return list(world.engine(*watches).backtest(None, since_seconds=int(days * DAY)))


def test_every_model_is_judged_on_the_watchs_own_past(world: World, load: Watch) -> None:
    """Each built-in, the watch's own parameters and the day before: with scores, cost, progress and advice."""
    told: list[tuple[str, int, int]] = []
    watch = load(model_class="ARIMAModel", model_params={"p": 1}, horizon="10m")
    engine = world.engine(watch)
    [report] = engine.backtest(None, since_seconds=2 * DAY, progress=lambda *said: told.append(said))
    own = 'ARIMAModel {"p": 1}'
    assert {one.model for one in report.standings} == {NAIVE, own, *BUILT_INS}
    tasks = 4 * (2 + len(BUILT_INS))
    assert told == [(watch.slug, done, tasks) for done in range(1, tasks + 1)]
    assert (report.own, report.series, report.of_series, report.trained) == (own, 6, 6, 4)
    assert report.reported == (1, 5, 10)
    assert report.end - report.start == pytest.approx(DAY, abs=2_400)
    by_name = {one.model: one for one in report.standings}
    assert [one.overall for one in report.standings] == sorted(one.overall for one in report.standings)
    np.testing.assert_allclose(by_name[NAIVE].scores["mase"], 1.0)
    for one in report.standings:
        assert one.problem is None
        assert one.cpu_ms is not None
        assert one.cpu_ms > 0
        assert all(0.7 < share <= 1 for share in one.scores["coverage"])
    # the day before carries its own noise; whatever follows the level does without
    assert by_name["ExponentialSmoothingModel"].scores["mae"][0] < by_name[NAIVE].scores["mae"][0]
    assert report.advice is not None


def test_scores_are_those_of_the_stored_windows(world: World, load: Watch) -> None:
    """The day before, forecast by hand from what the store has after the evaluation, makes the same errors."""
    watch = load()
    engine = world.engine(watch)
    [report] = engine.backtest([watch.slug], since_seconds=2 * DAY)
    with engine.store.database.read() as conn:
        _, fingerprints = watch_store.live_series(conn)
    window = windows_store.read_window(engine.store, 60, np.sort(fingerprints), report.end - 2 * DAY + 60, report.end)
    model = SeasonalNaive("1m", "5m", "30m")
    model.fit_window(window)
    errors: list[list[float]] = [[] for _ in fingerprints]
    for fold in folds(2 * 1_440, 1_440, 30, 5):
        for origin in fold.origins.tolist():
            mean = model.predict_window(window.columns(slice(0, origin + 1)), 5)[:, 4]
            for row, error in enumerate(np.abs(window.values[:, origin + 5] - mean).tolist()):
                errors[row] += [error] if np.isfinite(error) else []
    [naive] = [one for one in report.standings if one.model == NAIVE]
    assert naive.scores["mae"][report.leads.index(5)] == pytest.approx(np.median([np.mean(one) for one in errors]))


@pytest.mark.usefixtures("once")
def test_what_is_stored_is_used_and_not_asked_for_again(world: World, load: Watch) -> None:
    """The second evaluation needs no Prometheus at all, and says the same."""
    [first] = evaluated(world, load())
    world.url = "http://127.0.0.1:9"
    [second] = evaluated(world, load())
    assert second.problem is None
    assert [(one.model, one.scores) for one in second.standings] == [(one.model, one.scores) for one in first.standings]


@pytest.mark.usefixtures("once")
def test_a_watch_that_cannot_be_judged_says_why_and_stops_no_other(world: World, load: Watch) -> None:
    """No such metric, no history, and a good one behind them."""
    missing, young = WatchConfig(metric="shop_nothing", model_class="ARIMAModel"), load(horizon="40h", history="5d")
    reports = evaluated(world, missing, young, load())
    assert "has no series shop_nothing" in (reports[0].problem or "")
    assert reports[1].problem == "no series has 3d8h30m of history (30m + 2 x 40h) in the last 2d; go further back"
    assert reports[2].problem is None


@pytest.mark.usefixtures("once")
def test_a_model_of_ones_own_is_judged_beside_them(world: World, load: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its five methods in workers of its own; one that fails says so in its row, and another one is recommended."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "models"))
    importlib.import_module("own_models")
    get_reusable_executor(max_workers=2).shutdown(kill_workers=True)  # new ones find the folder
    models = ("own_models:RepeatLast", "own_models:SavesNothing")
    grid = {"metric": "shop_slow", "granularity": "5m"}
    good, bad = (next(iter(evaluated(world, load(model_class=name, **grid), days=0.9))) for name in models)
    by_name = {one.model: one for one in good.standings}
    last = by_name["own_models:RepeatLast"]
    assert last.cpu_ms is None  # its workers' is not known
    assert last.scores["mae"] == by_name[NAIVE].scores["mae"]  # without a day before, the naive is the last value too
    [failed] = [one for one in bad.standings if one.model == "own_models:SavesNothing"]
    assert "save wrote nothing to its path" in (failed.problem or "")
    assert np.isnan(failed.overall)
    assert bad.advice is not None
    assert bad.advice.text.startswith("own_models:SavesNothing could not be judged (own_models:SavesNothing failed for")
    assert bad.advice.model in BUILT_INS


@pytest.mark.usefixtures("once")
def test_an_evaluation_that_nobody_waits_for_ends(world: World, load: Watch) -> None:
    """An interrupt in the middle of it kills the workers at once, and the next evaluation has new ones."""

    def interrupt(slug: str, done: int, total: int) -> None:
        raise InterruptedError

    engine = world.engine(load())
    with pytest.raises(InterruptedError):
        list(engine.backtest(None, since_seconds=2 * DAY, progress=interrupt))
    [report] = evaluated(world, load())
    assert report.problem is None


@pytest.mark.usefixtures("once")
def test_of_many_series_a_fair_draw_is_judged(world: World, load: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    """A watch of thousands costs no more than one of a few hundred, and says how many there are."""
    monkeypatch.setattr(backtesting, "MOST_SERIES", 4)
    [report] = evaluated(world, load())
    assert (report.series, report.of_series) == (4, 6)

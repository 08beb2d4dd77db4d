"""A person's model raises, hangs, dies, or returns nonsense: in training and at a tick, through the whole engine."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from joblib.externals.loky import get_reusable_executor

from sentinel_core import WatchConfig
from tests.apps.server import eventually
from tests.bad_days.conftest import serving
from tests.moved_world import World

Watch = Callable[..., WatchConfig]
Mood = Callable[[str], None]

WORDS = {
    "raise": "predict raised RuntimeError: out of ideas",
    "nan": "predict returned nan at lead 2; return finite values",
    "short": "predict returned values of shape (4,); the horizon has 5 steps",
    "exit": "ended its process (it exited, crashed or ran out of memory)",
    "hang": "did not return within 1 s; make the model faster, or raise the watch's model_timeout",
}


@pytest.fixture(scope="module")
def module_path() -> Iterator[None]:
    """The person's module, on the path of this process and of fresh workers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        get_reusable_executor(max_workers=2).shutdown(kill_workers=True)
        yield
    get_reusable_executor(max_workers=2).shutdown(kill_workers=True)


@pytest.fixture
def mood(tmp_path: Path) -> Mood:
    """Sets how the model behaves."""

    def set_mood(text: str) -> None:
        (tmp_path / "mood").write_text(text)

    set_mood("")
    return set_mood


@pytest.fixture
def moody(module_path: None, watch: Watch, tmp_path: Path) -> WatchConfig:
    """A watch with the person's model."""
    params = {"mood": str(tmp_path / "mood")}
    return watch(model_class="moody:Moody", model_timeout="1s", model_params=params, history="20m")


def test_at_a_tick_it_shows_the_last_value_and_is_named(
    world: World, watch: Watch, moody: WatchConfig, mood: Mood
) -> None:
    """Each fault is named with class, series and remedy; the last value stands, other watches do not notice."""
    engine = world.engine(watch("zero"), moody)
    zero, own = engine.sync_watches()
    reports = engine.train([zero, own], kind="cold_start", reason="test")
    assert [report.promoted for report in reports] == [True, True]
    with serving(engine) as sidecar:
        for manner, words in WORDS.items():
            mood(f"predict {manner}")
            _, forecast, _ = world.tick(engine)
            assert list(forecast.failures) == [own]
            error = str(engine.status()["even"]["last_error"])
            assert error.startswith("forecast: moody:Moody failed for 2 series, for example even{host=")
            assert words in error
            assert "sentinel_core.models.conformance" in error
            status = engine.status()["zero"]
            assert (status["last_error"], status["staleness_seconds"]) == (None, 0)
            eventually(lambda: all('sentinel_version="naive"' in line for line in sidecar.lines("even")))
            assert len(sidecar.lines("even")) == 2 * 5
            assert all('sentinel_version="v1"' in line for line in sidecar.lines("zero"))
        mood("predict raise b")
        world.tick(engine)
        assert 'failed for 1 series, for example even{host="b"}' in str(engine.status()["even"]["last_error"])
        eventually(lambda: sum('sentinel_version="v1"' in line for line in sidecar.lines("even")) == 5)
        mood("")
        world.tick(engine)
        assert engine.status()["even"]["last_error"] is None
        eventually(lambda: all('sentinel_version="v1"' in line for line in sidecar.lines("even")))


@pytest.mark.parametrize("manner", ["raise", "short", "hang"])
def test_in_training_it_changes_nothing(
    world: World, watch: Watch, moody: WatchConfig, mood: Mood, manner: str
) -> None:
    """The old version goes on serving, the next watch is trained, and status says what was wrong until it works."""
    engine = world.engine(moody, watch("zero"))
    own, zero = engine.sync_watches()
    engine.train([own], kind="cold_start", reason="test")
    mood(f"fit {manner}" if manner != "short" else f"predict {manner}")
    began = time.monotonic()
    reports = engine.train([own, zero], kind="retrain", reason="test")
    assert time.monotonic() - began < 20
    assert [report.version for report in reports] == [None, 1]
    words = WORDS[manner].replace("predict raised", "fit raised")
    assert words in reports[0].detail
    assert reports[0].detail.startswith("moody:Moody failed for 2 series, for example even{host=")
    mood("")
    _, forecast, _ = world.tick(engine)
    assert forecast.failures == {}
    status = engine.status()["even"]
    assert status["active_version"] == "v1"
    assert words in str(status["last_error"])
    (report,) = engine.train([own], kind="retrain", reason="test")
    assert report.version == 2
    assert engine.status()["even"]["last_error"] is None


def test_one_series_that_cannot_be_fitted_leaves_the_others(world: World, moody: WatchConfig, mood: Mood) -> None:
    """The others serve; the one is named, shows its last value marked as such, and is learnt when the model can."""
    engine = world.engine(moody)
    (own,) = engine.sync_watches()
    mood("fit raise b")
    (report,) = engine.train([own], kind="cold_start", reason="test")
    assert (report.promoted, report.series, report.series_refitted) == (True, 1, 1)
    assert 'failed for 1 series, for example even{host="b"}: fit raised' in str(engine.status()["even"]["last_error"])
    _, forecast, _ = world.tick(engine)
    assert (forecast.series, forecast.naive, forecast.pooled) == (2, 1, 0)
    world.tick(engine, 300)
    (request,) = engine.decide_actions()
    assert request.kind == "cold_start"
    mood("")
    (report,) = engine.train([own], kind="cold_start", reason="test")
    assert (report.promoted, report.series_refitted) == (True, 1)
    _, forecast, _ = world.tick(engine)
    assert (forecast.series, forecast.naive) == (2, 0)


def test_missed_origins_of_a_model_that_hangs_are_let_go(world: World, moody: WatchConfig, mood: Mood) -> None:
    """After a pause a tick asks a person's model for the newest origin alone: other watches wait for no replay."""
    engine = world.engine(moody)
    engine.train(engine.sync_watches(), kind="cold_start", reason="test")
    mood("predict hang")
    began = time.monotonic()
    _, forecast, _ = world.tick(engine, 1200)
    assert time.monotonic() - began < 20
    assert forecast.origins == 1

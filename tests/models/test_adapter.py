"""A person's model in worker processes: what works, and what none of its failures can do."""

import importlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import joblib
import numpy as np
import pytest
from joblib.externals.loky import get_reusable_executor

from sentinel_core.errors import ModelError
from sentinel_core.models import workers
from sentinel_core.models.adapter import FiveMethodBatchModel
from sentinel_core.windows import Window


@pytest.fixture(scope="module")
def own_models() -> Iterator[ModuleType]:
    """The person's module, on the path of this process and of fresh workers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        get_reusable_executor(max_workers=2).shutdown(kill_workers=True)
        yield importlib.import_module("own_models")
    get_reusable_executor(max_workers=2).shutdown(kill_workers=True)


def window_of(last: list[float], samples: int = 20) -> Window:
    values = np.arange(samples) + 0.25 + np.zeros((len(last), 1))
    values[:, -1] = last
    return Window(100 + np.arange(len(last)), 60 * np.arange(1_000, 1_000 + samples), values, 60)


def model_of(
    own_models: ModuleType, name: str = "RepeatLast", timeout: float = 20, **params: object
) -> FiveMethodBatchModel:
    return FiveMethodBatchModel(
        getattr(own_models, name), "1m", "3m", "4m", timeout_seconds=timeout, model_params=params
    )


def states(model: FiveMethodBatchModel) -> list[list[int]]:
    return [json.loads(state) for state in model.parameters["state"]]


def test_each_series_has_its_own_model(own_models: ModuleType) -> None:
    """Every series is fitted on its own rows, forecast with its own state, and given its model_params."""
    window = window_of([1.0, 2.0, 3.0])
    model = model_of(own_models, shift=10.0)
    model.fit_window(window)
    assert states(model) == [[1, 16]] * 3
    assert model.predict_window(window, 3).tolist() == [[11.0] * 3, [12.0] * 3, [13.0] * 3]
    assert model.predict_window(window, 5)[0].tolist() == [11.0] * 5
    assert model.predict_window(window, 2)[0].tolist() == [11.0] * 2
    model.update_window(window, 5)
    assert states(model) == [[2, 5]] * 3
    assert model.errors == {}
    assert model.feature_names[:5] == ("lag_4", "lag_3", "lag_2", "lag_1", "rolling_mean")


def test_gaps_and_a_late_start_leave_finite_rows(own_models: ModuleType) -> None:
    """A gap holds the last value, a history begins with its series, and one too short is shown by its last value."""
    window = window_of([1.0, 2.0, 3.0, 4.0])
    window.values[0, 8:11] = np.nan
    window.values[1, :10] = np.nan
    window.values[2, :17] = np.nan
    window.values[3] = np.nan
    model = model_of(own_models, shift=1.0)
    model.fit_window(window)
    assert [json.loads(state)[1] if state else 0 for state in model.parameters["state"]] == [16, 6, 0, 0]
    forecast = model.predict_window(window, 3)
    assert forecast[:3, 0].tolist() == [2.0, 3.0, 3.0]
    assert np.isnan(forecast[3]).all()


@pytest.mark.parametrize(
    ("manner", "words"),
    [
        ("raise", "predict raised RuntimeError: out of ideas"),
        ("nan", "predict returned nan at lead 2; return finite values"),
        ("short", r"predict returned values of shape \(2,\); the horizon has 3 steps"),
        ("exit", "ended its process"),
        ("hang", "did not return within 1.5 s; make the model faster, or raise the watch's model_timeout"),
    ],
)
def test_one_bad_series_fails_no_other(
    own_models: ModuleType, monkeypatch: pytest.MonkeyPatch, manner: str, words: str
) -> None:
    """Where one series' model raises, returns nonsense, dies or hangs, it shows its last value and is named."""
    window = window_of([1.0, 2.0, 3.0, 4.0, 5.0])
    monkeypatch.setattr(workers, "TASK_SECONDS", 0.1)
    model = model_of(own_models, timeout=1.5, shift=1.0, bad=2.0, manner=manner)
    model.fit_window(window)
    began = time.monotonic()
    forecast = model.predict_window(window, 3)
    assert time.monotonic() - began < 20
    assert forecast[:, 0].tolist() == [2.0, 2.0, 4.0, 5.0, 6.0]
    assert list(model.errors) == [101]
    with pytest.raises(
        ModelError, match=rf"own_models:RepeatLast failed for each of the 1 series asked.* 101: {words}"
    ):
        model.take(np.array([101])).predict_window(window.rows([1]), 3)


def test_a_failed_fit_shows_the_last_value(own_models: ModuleType) -> None:
    """A series whose fit fails has no model; a failed finetune keeps the old one."""
    window = window_of([1.0, 2.0])
    model = model_of(own_models, shift=1.0, bad=18.25, method="fit")
    window.values[0, -2] = 7.0
    model.fit_window(window)
    assert list(model.errors) == [101]
    assert "RuntimeError" in model.errors[101]
    assert model.predict_window(window, 3)[:, 0].tolist() == [2.0, 2.0]
    assert model.errors == {}


def test_when_all_hang_the_run_still_ends(own_models: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many series that hang are given up after a few, instead of waiting for each."""
    monkeypatch.setattr(workers, "TASK_SECONDS", 0.1)
    monkeypatch.setattr(workers, "MOST_HANGS", 2)
    window = window_of([1.0] * 40)
    model = model_of(own_models, timeout=0.5, bad=1.0, manner="hang")
    model.fit_window(window)
    began = time.monotonic()
    with pytest.raises(ModelError, match="failed for each of the 40 series"):
        model.predict_window(window, 3)
    assert time.monotonic() - began < 30


def test_a_model_that_saves_nothing_is_told_so(own_models: ModuleType) -> None:
    """The message names the path contract, which numpy's savez breaks."""
    with pytest.raises(ModelError, match=r"save wrote nothing to its path; write to exactly that file"):
        model_of(own_models, "SavesNothing").fit_window(window_of([1.0]))


def test_slow_is_not_hung(own_models: ModuleType) -> None:
    """Tasks come back early with what they have, so that only a single call is measured against the timeout."""
    window = window_of([float(k) for k in range(24 * joblib.cpu_count())])
    model = model_of(own_models, timeout=0.5, pause=0.1)
    model.fit_window(window)
    assert model.errors == {}
    assert all(model.parameters["state"])


def test_rows_travel_and_survive_a_file(own_models: ModuleType, tmp_path: Path) -> None:
    """take, put, concat and a joblib file keep each series' bytes and what constructs its model."""
    window = window_of([1.0, 2.0, 3.0])
    model = model_of(own_models, shift=5.0)
    model.fit_window(window)
    joblib.dump(model.parameters, tmp_path / "artifact")
    back = model.with_rows(model.fingerprints, joblib.load(tmp_path / "artifact"))
    part = back.take(np.array([101]))
    joined = back.put(part)
    assert joined.fingerprints.tolist() == [100, 101, 102]
    assert joined.predict_window(window, 3)[:, 0].tolist() == [6.0, 7.0, 8.0]


def test_adopted_series_wait_with_their_last_value(own_models: ModuleType) -> None:
    """A series the model was never fitted on shows its last value, without starting a process."""
    model = model_of(own_models, shift=5.0)
    adopted = model.adopt(window_of([1.0, np.nan]))
    assert adopted.predict_window(window_of([1.0, np.nan]), 2).tolist() == [[1.0, 1.0], [18.25, 18.25]]


def test_a_module_that_does_not_import_is_named(own_models: ModuleType) -> None:
    """A class that the workers cannot import fails with the reason, not with a broken pool."""
    spec = workers.Spec("no_such_module:Model", ("1m", "3m", "4m"), {})
    [outcome] = workers.run(spec, [workers.Call("predict", b"", window_of([1.0]))], 5.0)
    assert outcome == workers.Failure(
        "importing no_such_module:Model raised ModuleNotFoundError: No module named 'no_such_module'"
    )

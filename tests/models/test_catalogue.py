"""From a watch to a model, and what a person reads where that cannot work."""

import importlib
from pathlib import Path
from types import ModuleType

import pytest

from sentinel_core.config import WatchConfig
from sentinel_core.errors import ConfigError
from sentinel_core.models import ARIMAModel, BaseModel, SGDRegressorModel, catalogue
from sentinel_core.models.adapter import FiveMethodBatchModel


@pytest.fixture
def own_models(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    return importlib.import_module("own_models")


def test_a_built_in_by_name_class_or_path() -> None:
    """All three ways of writing a model mean the same class, and its path leads back to it."""
    path = catalogue.import_path(ARIMAModel)
    assert catalogue.resolve("ARIMAModel") is catalogue.resolve(ARIMAModel) is catalogue.resolve(path) is ARIMAModel
    assert all(catalogue.resolve(name) is model for name, model in catalogue.BUILT_INS.items())


def test_a_built_in_is_built_with_the_grid_and_parameters_of_its_watch() -> None:
    """A watch's durations and model_params reach the constructor."""
    watch = WatchConfig(model_class="SGDRegressorModel", granularity="5m", horizon="1h", model_params={"epochs": 7})
    model = catalogue.build(watch)
    assert isinstance(model, SGDRegressorModel)
    assert (model.epochs, model.horizon_steps, model.lookback_steps) == (7, 12, 6)


def test_five_methods_are_wrapped(own_models: ModuleType) -> None:
    """A person's class becomes a batch model with the watch's timeout and model_params."""
    watch = WatchConfig(
        model_class="own_models:RepeatLast", model_timeout="7s", model_params={"shift": 2.0}, granularity="1m"
    )
    model = catalogue.build(watch)
    assert isinstance(model, FiveMethodBatchModel)
    assert (model.model_class, model.timeout_seconds) == (own_models.RepeatLast, 7)
    assert model.model_params == {"shift": 2.0}
    assert catalogue.import_path(own_models.RepeatLast) == "own_models:RepeatLast"


@pytest.mark.parametrize(
    ("model_class", "words"),
    [
        ("Arima", r"there is no built-in 'Arima'; name LinearTrendModel, ExponentialSmoothingModel, ARIMAModel"),
        (None, "None is not a model; name LinearTrendModel"),
        ("json:loads", "is not a model; name LinearTrendModel"),
        ("json:JSONDecoder", "is not a model"),
        ("json:Nothing", "json has no 'Nothing'"),
        ("no_such_module:Model", "importing no_such_module raised ModuleNotFoundError"),
        ("own_models:Unfinished", "Unfinished has no fit, load, partial_fit, save; write the missing methods"),
        (BaseModel, "BaseModel has no fit, load"),
    ],
)
def test_what_is_no_model_is_refused_with_the_remedy(own_models: ModuleType, model_class: object, words: str) -> None:
    """Whatever cannot be a model names what is wrong and what can be written instead."""
    with pytest.raises(ConfigError, match=words):
        catalogue.resolve(model_class)


def test_a_class_that_other_processes_cannot_import_is_refused(own_models: ModuleType) -> None:
    """Classes of the script itself, of a function, or replaced in their module have to move to a module."""

    class Inside(own_models.RepeatLast):
        pass

    script = type("Scripted", (own_models.RepeatLast,), {"__module__": "__main__"})
    hidden = type("Hidden", (own_models.RepeatLast,), {"__module__": "own_models"})
    for model, words in (
        (Inside, "is defined inside a function; move it to the top level of a module"),
        (script, "is defined in the script that is run, which other processes cannot import; move it"),
        (hidden, "Hidden is not what own_models:Hidden imports; move it"),
    ):
        with pytest.raises(ConfigError, match=words):
            catalogue.resolve(model)


def test_unknown_model_params_are_named(own_models: ModuleType) -> None:
    """A misspelt parameter is refused with those that there are."""
    watch = WatchConfig(model_class="SGDRegressorModel", model_params={"epoch": 3})
    with pytest.raises(ConfigError, match="SGDRegressorModel has no parameter 'epoch'; it has learning_rate, epochs"):
        catalogue.build(watch)
    watch = WatchConfig(model_class="auto", model_params={"holidays": "XX"})
    with pytest.raises(ConfigError, match="AutoModel has no parameter 'holidays'; it has none; the watch itself has"):
        catalogue.build(watch)
    watch = WatchConfig(model_class="own_models:Plain", model_params={"speed": 3})
    with pytest.raises(ConfigError, match="Plain has no parameter 'speed'; it has none"):
        catalogue.build(watch)


@pytest.mark.parametrize("model_class", ["LinearTrendModel", "ExponentialSmoothingModel"])
def test_a_built_in_without_parameters_refuses_any(model_class: str) -> None:
    """A misspelt or foreign parameter is never swallowed."""
    with pytest.raises(ConfigError, match="has no parameter 'alpha'; it has none"):
        catalogue.build(WatchConfig(metric="up", model_class=model_class, model_params={"alpha": 1}))

"""From a watch's `model_class` to a model: a built-in's name, a class, or "package.module:Class".

The only place that imports a person's code into the engine. Every problem is a ConfigError that says what to write.
"""

import importlib
import inspect
import sys
from typing import Any

from sentinel_core.config import WatchConfig
from sentinel_core.durations import parse_duration
from sentinel_core.errors import ConfigError
from sentinel_core.models.adapter import FiveMethodBatchModel
from sentinel_core.models.arima import ARIMAModel
from sentinel_core.models.auto import AutoModel
from sentinel_core.models.base import BaseModel, BatchModel, ModelSpec
from sentinel_core.models.exponential_smoothing import ExponentialSmoothingModel
from sentinel_core.models.linear_trend import LinearTrendModel
from sentinel_core.models.seasonal_ridge import SeasonalRidgeModel
from sentinel_core.models.sgd_regressor import SGDRegressorModel
from sentinel_core.validation import AUTO, model_path

BUILT_INS: dict[str, type[BatchModel]] = {
    model.__name__: model
    for model in (
        LinearTrendModel,
        ExponentialSmoothingModel,
        ARIMAModel,
        SGDRegressorModel,
        SeasonalRidgeModel,
        AutoModel,
    )
}
_CHOICES = f"name {', '.join(BUILT_INS)} ({AUTO} for short), or your own class as package.module:Class"
GRID = ("granularity", "horizon", "lookback")
HOLIDAYS = ("holidays", "timezone")
_CONTRACTS = (BaseModel, BatchModel, ModelSpec, object)


def resolve(model_class: Any) -> type[BaseModel] | type[BatchModel]:
    """The class that is meant; ConfigError where there is none, or it is no model that another process can import.

    >>> resolve("ARIMAModel").__name__
    'ARIMAModel'
    """
    found = _named(model_class) if isinstance(model_class, str) else model_class
    if not isinstance(found, type) or not issubclass(found, BaseModel | BatchModel):
        raise ConfigError([f"model_class: {model_class!r} is not a model; {_CHOICES} (a subclass of BaseModel)"])
    if inspect.isabstract(found):
        missing = ", ".join(sorted(found.__abstractmethods__))
        raise ConfigError([f"model_class: {found.__qualname__} has no {missing}; write the missing methods"])
    import_path(found)
    return found


def import_path(model_class: type) -> str:
    """How another process finds the class; ConfigError where it cannot.

    >>> import_path(ARIMAModel)
    'sentinel_core.models.arima:ARIMAModel'
    """
    module, name = model_class.__module__, model_class.__qualname__
    if module == "__main__":
        reason = "is defined in the script that is run, which other processes cannot import"
    elif "<locals>" in name:
        reason = "is defined inside a function"
    elif _attribute(sys.modules.get(module), name) is not model_class:
        reason = f"is not what {module}:{name} imports"
    else:
        return f"{module}:{name}"
    raise ConfigError([f"model_class: {name} {reason}; move it to the top level of a module and import it from there"])


def build(watch: WatchConfig) -> BatchModel:
    """An unfitted model on the watch's grid, with its model_params, and its holidays where the model knows any.

    A five-method class is wrapped by the adapter.
    """
    model_class = resolve(watch.model_class)
    params = dict(watch.model_params)
    _check_params(model_class, params)
    if watch.holidays is not None and knows_holidays(model_class):
        params |= {"holidays": watch.holidays, "timezone": watch.timezone}
    grid = watch.granularity, watch.horizon, watch.lookback
    if issubclass(model_class, BatchModel):
        return model_class(*grid, **params)
    timeout = parse_duration(watch.model_timeout)
    return FiveMethodBatchModel(model_class, *grid, timeout_seconds=timeout, model_params=params)


def knows_holidays(model_class: type) -> bool:
    """Whether a model is told a watch's holidays: its constructor takes `holidays` and `timezone`."""
    return set(HOLIDAYS) <= inspect.signature(model_class).parameters.keys()


def _named(text: str) -> Any:
    if model_path(text) in BUILT_INS:
        return BUILT_INS[model_path(text)]
    module, separator, name = text.partition(":")
    if not separator:
        raise ConfigError([f"model_class: there is no built-in {text!r}; {_CHOICES}"])
    try:
        found = _attribute(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:  # a person's module may raise anything while it is imported
        raise ConfigError(
            [f"model_class: importing {module} raised {type(error).__name__}: {error}; {_CHOICES}"]
        ) from error
    if found is None:
        raise ConfigError([f"model_class: {module} has no {name!r}; {_CHOICES}"])
    return found


def _attribute(owner: Any, name: str) -> Any:
    for part in name.split("."):
        owner = getattr(owner, part, None)
    return owner


def _check_params(model_class: type, params: dict[str, Any]) -> None:
    if not params:
        return
    parameters = inspect.signature(model_class).parameters.values()
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    if open_ended and any("__init__" in vars(base) for base in model_class.__mro__ if base not in _CONTRACTS):
        return  # a constructor of its own that takes anything; one without any has no parameters
    named = [parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD]
    of_watch = (*GRID, *HOLIDAYS) if knows_holidays(model_class) else GRID
    accepted = [name for name in named if name not in of_watch]
    unknown = [name for name in params if name not in accepted]
    if unknown:
        known = f"it has {', '.join(accepted)}" if accepted else "it has none"
        if set(unknown) & set(of_watch):
            known += "; the watch itself has this setting"
        name = model_class.__name__
        raise ConfigError([f"model_params: {name} has no parameter {', '.join(map(repr, unknown))}; {known}"])

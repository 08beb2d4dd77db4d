"""The rules of a configuration: each problem is one line that says where, what, and what to write instead.

Nothing here asks the network or the disk, except that a model named by import path is imported.
"""

import difflib
import ipaddress
import json
import math
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sentinel_core import calendars
from sentinel_core.durations import format_duration, parse_duration
from sentinel_core.errors import ConfigError
from sentinel_core.series import LABEL_NAME, METRIC_NAME, legal_name

if TYPE_CHECKING:
    from sentinel_core.config import AuthConfig, MonitorConfig, SentinelConfig, WatchConfig

MIN_STEP_SECONDS = 5  # a run per tick takes 3-9 s to start; 15 s keeps up, below 5 s every tick would come late
MAX_STEPS = {
    "horizon": 10_000,  # leads are stored as int16, and Prometheus refuses more than 11,000 points
    "lookback": 20_000,  # each tick reads it: 1.6 GB for 10,000 series
    "history": 1_000_000,  # 8 MB a series; 173 days at 15s, two years at 1m
    "anomaly_quiet": 720,  # each tick reads its scores: 0.2 GB for 10,000 series; an hour at 5s, half a day at 1m
}
_MONITORING_SPANS = ("monitor_step", "event_retention", "psi_retention", "incident_retention", "audit_retention")
MAX_SECONDS = 3_660 * 86_400  # ten years: nobody has more, and arithmetic on times stays within 64 bits

_SQL_URL = r"sqlite:////.+|postgresql(\+psycopg)?://(?=.)([^@]*@)?(\[[^]]*\]|[^/?:]*)(:(?P<port>\d+))?([/?].*)?"
_DATA_URL = r"file:///.|s3://[^/]"
AUTO = "auto"  # short for AutoModel
_HOST = re.compile(r"\w[\w.-]*")


def problems(config: "SentinelConfig") -> list[str]:
    """Every problem of a configuration, watches included; empty where there is none."""
    found, typed = _type_problems(config, "")
    found += _config_problems(config, typed)
    if "auth" in typed:
        auth_found, _ = _type_problems(config.auth, "auth.")
        found += auth_found or _auth_problems(config.auth)
    if "monitoring" in typed:
        found += monitor_problems(config.monitoring, "monitoring.")
    if "watches" in typed:
        valid = []
        for index, watch in enumerate(config.watches):
            where = f"watches[{index}]."
            watch_found, watch_typed = _type_problems(watch, where)
            watch_found += [where + problem for problem in _watch_problems(watch, watch_typed)]
            found += watch_found
            if not watch_found:
                valid.append((index, watch))
        found += _duplicates(valid)
        if "emit_steps" in typed and valid and len(valid) == len(config.watches):
            longest = max(watch.horizon_steps for _, watch in valid)
            found += [
                f"emit_steps: no watch looks {step} steps ahead; the longest horizon has {longest}"
                for step in config.emit_steps
                if step > longest
            ]
    return found


def unknown_field(where: str, name: str, known: Sequence[str]) -> str:
    """The problem of a field that does not exist, with the closest one that does.

    >>> unknown_field("watches[0].horizn", "horizn", ["horizon", "history"])
    'watches[0].horizn: unknown field; did you mean horizon?'
    """
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
    return f"{where}: unknown field; {hint}"


# ---- types


def _fits(value: Any, annotation: Any) -> bool:
    """Whether a value has the type of a field: the few forms that the configuration's dataclasses use."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is Any:
        return True
    if origin is types.UnionType:
        return any(_fits(value, argument) for argument in arguments)
    if origin is Mapping:
        return isinstance(value, Mapping) and all(
            _fits(key, arguments[0]) and _fits(item, arguments[1]) for key, item in value.items()
        )
    if origin is Sequence:
        return isinstance(value, (list, tuple)) and all(_fits(item, arguments[0]) for item in value)
    if annotation in (int, float):
        return isinstance(value, (int, annotation)) and not isinstance(value, bool)
    return isinstance(value, annotation)


def _wanted(annotation: Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is types.UnionType:
        return _wanted(arguments[0])
    if origin is Mapping:
        tables = {str: "a table of text to text", float: "a table of numbers, as { above = 0.9 }"}
        return tables.get(arguments[1], "a table")
    if origin is Sequence:
        lists = {int: "a list of whole numbers", float: "a list of numbers", str: "a list of texts in quotes"}
        return lists.get(arguments[0]) or f"a list of tables ({arguments[0].__name__})"
    plain = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
    return plain.get(annotation) or f"a table ({annotation.__name__})"


def _type_problems(section: Any, where: str) -> tuple[list[str], set[str]]:
    """The problems of a section's types, and the names of the fields that are of the right one."""
    found, typed = [], set()
    for entry in fields(section):
        value = getattr(section, entry.name)
        if _fits(value, entry.type):
            typed.add(entry.name)
        else:
            found.append(f"{where}{entry.name}: {value!r} is not {_wanted(entry.type)}")
    return found, typed


# ---- rules


def _duration(text: str, field: str, found: list[str]) -> int | None:
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        found.append(f"{field}: {error}")
        return None
    if seconds > MAX_SECONDS:
        found.append(f"{field}: {text} is longer than ten years")
        return None
    return seconds


def _config_problems(config: "SentinelConfig", typed: set[str]) -> list[str]:
    found: list[str] = []
    if "prometheus_url" in typed:
        found += _url_problem("prometheus_url", config.prometheus_url)
    ports = [name for name in ("emitter_port", "dagster_port") if name in typed]
    for name in ports:
        if not 1 <= getattr(config, name) <= 65_535:
            found.append(f"{name}: {getattr(config, name)} is not a port; write 1 to 65535")
    if len(ports) == 2 and config.emitter_port == config.dagster_port:
        found.append(f"dagster_port: {config.dagster_port} is emitter_port too; give each its own")
    if "artifact_store" in typed and (not config.artifact_store or "://" in config.artifact_store):
        found.append(f"artifact_store: {config.artifact_store!r} is no local folder; an s3:// URL goes into data_url")
    if "max_versions_per_metric" in typed and config.max_versions_per_metric < 1:
        found.append(f"max_versions_per_metric: {config.max_versions_per_metric} keeps nothing; write 1 or more")
    if "scrape_timeout" in typed and not 0 < config.scrape_timeout < math.inf:
        found.append(f"scrape_timeout: {config.scrape_timeout} is not a time; write seconds above 0, as 10.0")
    if "bind_address" in typed and not _is_address(config.bind_address):
        found.append(
            f"bind_address: {config.bind_address!r} is not an address; write 127.0.0.1 (this machine) or 0.0.0.0 (all)"
        )
    if "sql_url" in typed and config.sql_url and not _is_database(config.sql_url):
        found.append(  # without the URL: it may hold a password
            "sql_url: is no database that Sentinel knows; write sqlite:////absolute/path.db or "
            "postgresql+psycopg://user@host/database"
        )
    if "data_url" in typed and config.data_url and not re.match(_DATA_URL, config.data_url):
        found.append(
            f"data_url: {shown_url(config.data_url)!r} is no place for data; write file:///folder or s3://bucket/prefix"
        )
    if "emit_steps" in typed and any(step < 1 for step in config.emit_steps):
        found.append(f"emit_steps: {list(config.emit_steps)}: leads count from 1")
    if "query_concurrency" in typed and not 1 <= config.query_concurrency <= 64:
        found.append(f"query_concurrency: {config.query_concurrency} is not between 1 and 64; a core each is plenty")
    if "query_samples" in typed and config.query_samples < 1:
        found.append(f"query_samples: {config.query_samples} answers nothing; write 50000000 (a query holds 0.4 GB)")
    for span in ("settle_delay", "window_retention", "forecast_retention", "query_timeout", *_MONITORING_SPANS):
        if span in typed:
            _duration(getattr(config, span), span, found)
    if "external_url" in typed and config.external_url is not None:
        found += _url_problem("external_url", config.external_url)
    if "events_per_second" in typed and not 0 < config.events_per_second < math.inf:
        found.append(f"events_per_second: {config.events_per_second} lets nothing in; write a number above 0")
    if "alert_networks" in typed:
        found += [
            f"alert_networks: {text!r} is not a network; write 10.0.0.0/8, or 10.1.2.3 for one machine"
            for text in config.alert_networks
            if not _is_network(text)
        ]
    return found


def monitor_problems(monitor: "MonitorConfig", where: str) -> list[str]:
    """What is wrong with the settings of monitoring, a model's own or everybody's; each line begins with `where`."""
    found, _ = _type_problems(monitor, where)
    if found:
        return found
    hours, days = monitor.current_hours, monitor.max_current_days
    if hours < 1 or (hours > 24 and hours % 24) or (hours < 24 and 24 % hours):
        found.append(f"{where}current_hours: {hours} neither divides a day nor is whole days; write 6, 12, 24 or 48")
    if not max(1, hours / 24) <= days <= 7:
        found.append(f"{where}max_current_days: {days} is not between current_hours and 7 days")
    if monitor.baseline not in ("same_weekday", "preceding"):
        found.append(f"{where}baseline: {monitor.baseline!r} is unknown; write same_weekday or preceding")
    ranges = {"baseline_weeks": (2, 5), "baseline_days": (1, 28), "bins": (4, 15), "min_samples": (50, 1_000_000)}
    for name, (least, most) in ranges.items():
        if not least <= getattr(monitor, name) <= most:
            found.append(f"{where}{name}: {getattr(monitor, name)} is not between {least} and {most:,}")
    if not 0 < monitor.resolve < monitor.warn < monitor.critical < math.inf:
        found.append(f"{where}warn: 0 < resolve < warn < critical has to hold; the defaults are 0.07, 0.1 and 0.25")
    return found


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return True


def shown_url(url: str) -> str:
    """Return an address without the name and password in it, well formed or not.

    >>> shown_url("htp://me:secret@host:9090/x")
    'htp://***@host:9090/x'
    """
    return re.sub(r"//.*@", "//***@", url)


def _is_database(url: str) -> bool:
    found = re.fullmatch(_SQL_URL, url)
    return found is not None and 1 <= int(found["port"] or 1) <= 65_535


def _url_problem(name: str, url: str) -> Iterator[str]:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and _is_address(parts.hostname or "") and parts.port != 0
    except ValueError:
        good = False
    if not good:
        yield f"{name}: {shown_url(url)!r} is not an HTTP address; write http://host:9090"
    elif parts.query or parts.fragment:
        yield f"{name}: {parts.hostname} is followed by a query; write the address without ? and #"


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return bool(_HOST.fullmatch(text)) and not re.fullmatch(r"[\d.]+", text)
    return True


def _auth_problems(auth: "AuthConfig") -> Iterator[str]:
    if auth.bearer_token_env and auth.username:
        yield "auth: bearer_token_env and username exclude each other; keep one"
    if bool(auth.username) != bool(auth.password_env):
        yield "auth: basic authentication needs both username and password_env (the variable that holds the password)"
    if bool(auth.cert_file) != bool(auth.key_file):
        yield "auth: a client certificate needs both cert_file and key_file"
    for header in auth.headers_env:
        if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", header):
            yield f"auth.headers_env: {header!r} is not a header's name"


def _watch_problems(watch: "WatchConfig", typed: set[str]) -> list[str]:
    found: list[str] = []
    if typed.issuperset({"metric", "labels", "query", "name", "kind"}):
        found += _target_problems(watch)
    if typed.issuperset({"granularity", "horizon", "lookback", "history", "anomaly_quiet"}):
        found += _grid_problems(watch)
    for name in ("drift_cooldown", "model_timeout"):
        if name in typed:
            _duration(getattr(watch, name), name, found)
    if typed.issuperset({"drift_finetune_threshold", "drift_retrain_threshold"}):
        found += _threshold_problems(watch.drift_finetune_threshold, watch.drift_retrain_threshold)
    for name, allowed in (("drift_unit", ("mae", "scaled", "auto")), ("kind", ("auto", "gauge", "counter"))):
        if name in typed and getattr(watch, name) not in allowed:
            found.append(
                f"{name}: {getattr(watch, name)!r} is unknown; write {', '.join(allowed[:-1])} or {allowed[-1]}"
            )
    for name in ("drift_window", "max_series"):
        if name in typed and getattr(watch, name) < 1:
            found.append(f"{name}: {getattr(watch, name)} is not above 0")
    if "level" in typed and not 0 < watch.level < 1:
        found.append(f"level: {watch.level} is not a share between 0 and 1; write 0.95")
    if "bounds" in typed and watch.bounds and not (len(watch.bounds) == 2 and watch.bounds[0] < watch.bounds[1]):
        found.append(f"bounds: {list(watch.bounds)} are no lowest and highest value; write [0, 1], or [0, inf]")
    inner = watch.inner_level
    if inner is not None and typed.issuperset({"level", "inner_level"}) and not 0 < inner < watch.level:
        advice = "0.8" if watch.level > 0.8 else f"one, as {watch.level / 2:g}, or remove it"
        found.append(f"inner_level: {inner} is not a share below level {watch.level}; write {advice}")
    if "thresholds" in typed:
        found += _limit_problems(watch.thresholds, watch.bounds if "bounds" in typed else ())
    if "threshold_probability" in typed and not 0 < watch.threshold_probability <= 1:
        found.append(f"threshold_probability: {watch.threshold_probability} is not a share above 0, up to 1; write 0.9")
    if typed.issuperset({"ignore", "timezone", "holidays"}):
        found += _calendar_problems(watch)
    if "cron" in typed:
        found += _cron_problem(watch.cron)
    found += _model_problems(watch, valid=not found and len(typed) == len(fields(watch)))
    return found


def _target_problems(watch: "WatchConfig") -> Iterator[str]:
    if watch.metric is not None and watch.query is not None:
        yield "query: a watch has either metric (with labels) or query (with name); remove one"
    elif watch.metric is None and watch.query is None:
        yield "metric: required; write the metric's name, or a PromQL expression in query and its name in name"
    elif watch.metric is not None:
        if not METRIC_NAME.fullmatch(watch.metric):
            yield f"metric: {watch.metric!r} is not a metric's name; put matchers into labels, an expression into query"
        if watch.name is not None:
            yield "name: is only for a query; a metric's predictions bear the metric's own name"
    else:
        if not (watch.query or "").strip():
            yield "query: is empty; write a PromQL expression"
        if watch.name is None:
            yield "name: required with query; predictions are emitted as <name>_sentinel_predicted"
        elif not METRIC_NAME.fullmatch(watch.name):
            yield f"name: {watch.name!r} is not a metric's name; write letters, digits and _"
        if watch.labels:
            yield "labels: belong to metric; write the matchers into the query"
        if watch.kind == "counter":
            yield "kind: a query is forecast as it is; write rate(...) in the query"
    for label in watch.labels:  # of their values, regular expressions among them, Prometheus judges in `check`
        if not LABEL_NAME.fullmatch(label):
            yield f"labels: {label!r} is not a label's name"
        elif label == "__name__":
            yield "labels: __name__ is the metric's name; write it in metric"


def _grid_problems(watch: "WatchConfig") -> list[str]:
    found: list[str] = []
    names = ("granularity", "horizon", "lookback", "history", "anomaly_quiet")
    step, horizon, lookback, history, quiet = (_duration(getattr(watch, name), name, found) for name in names)
    if step is not None and step < MIN_STEP_SECONDS:
        found.append(f"granularity: {watch.granularity} is shorter than a tick can keep up with; write 15s or more")
    for name, seconds in (("horizon", horizon), ("lookback", lookback)):
        if step is not None and seconds is not None and seconds % step:
            below, above = (
                format_duration(max(1, seconds // step) * step),
                format_duration((seconds // step + 1) * step),
            )
            nearest = above if below == above else f"{below} or {above}"
            found.append(
                f"{name}: {getattr(watch, name)} is not a multiple of granularity {watch.granularity}; write {nearest}"
            )
    for name, seconds in zip(names[1:], (horizon, lookback, history, quiet), strict=True):
        if step and step >= MIN_STEP_SECONDS and seconds and seconds // step > MAX_STEPS[name]:
            most = format_duration(MAX_STEPS[name] * step)
            found.append(
                f"{name}: {seconds // step:,} steps; at most {MAX_STEPS[name]:,}: "
                f"write {most} or less, or take a longer granularity"
            )
    if horizon and lookback and history and history < lookback + horizon:
        least = format_duration(lookback + horizon)
        found.append(f"history: {watch.history} is shorter than lookback + horizon; write {least} or more")
    return found


def _threshold_problems(finetune: float, retrain: float) -> Iterator[str]:
    for name, value in (("drift_finetune_threshold", finetune), ("drift_retrain_threshold", retrain)):
        if not (math.isfinite(value) and value >= 0):
            yield f"{name}: {value} is not a threshold; write a number of 0 or more"
    if finetune > retrain:
        yield (
            f"drift_finetune_threshold: {finetune} is above drift_retrain_threshold {retrain}; "
            "low drift finetunes, high drift retrains: write both, the lower one first"
        )


def _limit_problems(thresholds: Mapping[str, float], bounds: Sequence[float]) -> Iterator[str]:
    for side, value in thresholds.items():
        if side not in ("above", "below"):
            yield f"thresholds: {side!r} is unknown; write above, below or both, as {{ above = 0.9 }}"
        elif not math.isfinite(value):
            yield f"thresholds: {side} = {value} is not a value of a metric; write a number"
        elif len(bounds) == 2 and not bounds[0] < value < bounds[1]:
            inside = f"within bounds {list(bounds)}"
            yield f"thresholds: no forecast gets {side} {value} {inside}; write one inside, or no bounds"
    above, below = thresholds.get("above", math.inf), thresholds.get("below", -math.inf)
    if below >= above:
        yield f"thresholds: every value is above {above} or below {below}; above has to be the greater one"


def _calendar_problems(watch: "WatchConfig") -> Iterator[str]:
    try:
        calendars.spans((), watch.timezone)
    except (KeyError, ValueError, OSError):  # zoneinfo's own: no such name, none at all, a folder
        yield f"timezone: {watch.timezone!r} is unknown; write a name as Europe/Berlin"
        return
    for entry in watch.ignore:
        try:
            calendars.spans([entry], watch.timezone)
        except ValueError as error:
            yield f"ignore: {error}"
    if watch.holidays is not None:
        try:
            calendars.check_holidays(watch.holidays)
        except ValueError as error:
            yield f"holidays: {error}"


def _cron_problem(cron: str) -> Iterator[str]:
    from croniter import croniter  # here: importing the configuration stays quick

    remedy = "write five fields, as 0 */6 * * * (minute hour day month weekday)"
    if len(cron.split()) != 5 or not croniter.is_valid(cron):
        yield f"cron: {cron!r} is not a schedule; {remedy}"
        return
    try:
        croniter(cron).get_next()
    except Exception:  # croniter's own error for a day that no year has
        yield f"cron: {cron!r} never comes round; {remedy}"


def _duplicates(watches: Sequence[tuple[int, "WatchConfig"]]) -> Iterator[str]:
    seen: dict[str, int] = {}
    names: dict[str, tuple[int, str | None]] = {}
    for index, watch in watches:
        where = f"watches[{index}]"
        if watch.slug in seen:
            yield (
                f"{where}: is the same as watches[{seen[watch.slug]}] ({watch.selector}, granularity "
                f"{watch.granularity}, horizon {watch.horizon}); remove one, or give it another horizon"
            )
        seen.setdefault(watch.slug, index)
        source = watch.query or watch.metric
        for name in _emitted_names(watch):
            other, emits = names.setdefault(name, (index, source))
            if emits != source:  # samples are kept by name and labels: one would overwrite the other's
                field, remedy = (
                    ("name", "choose another name") if watch.query else ("kind", "say which, or make it a named query")
                )
                yield f"{where}.{field}: watches[{other}] may emit {name!r} too, of another expression; {remedy}"
                break


def _emitted_names(watch: "WatchConfig") -> list[str]:
    """What the series of a watch may be called: whether an "auto" is a counter, only Prometheus knows."""
    if watch.query:
        return [legal_name(watch.name or "")]
    suffixes = {"gauge": ("",), "counter": ("_rate",)}.get(watch.kind, ("", "_rate"))
    return [legal_name(f"{watch.metric}{suffix}") for suffix in suffixes]


# ---- models


def model_path(model_class: Any) -> str:
    """The model as text that another process understands: a built-in's name, or `package.module:Class`.

    >>> model_path("sentinel_core.models.arima:ARIMAModel")
    'ARIMAModel'
    """
    if model_class == AUTO:
        return "AutoModel"
    path = model_class if isinstance(model_class, str) else f"{model_class.__module__}:{model_class.__qualname__}"
    module, _, name = path.partition(":")
    return name if module.split(".")[:2] == ["sentinel_core", "models"] else path


def _model_problems(watch: "WatchConfig", valid: bool) -> Iterator[str]:
    """`valid` says that the rest of the watch is, so that its model can be built."""
    from sentinel_core.models import catalogue  # here: the configuration imports without the models

    try:
        model_class = catalogue.resolve(watch.model_class)
        if watch.holidays is not None and not catalogue.knows_holidays(model_class):
            yield f"holidays: {model_class.__name__} knows none; remove it, or write model_class = SeasonalRidgeModel"
        if valid:
            json.dumps(dict(watch.model_params))
            catalogue.build(watch)
    except ConfigError as error:
        yield from error.problems
    except Exception as error:  # a constructor, a person's own among them, may raise anything
        yield f"model_params: {watch.model_params!r} cannot be used: {error}"

"""What a person configures: dataclasses in Python, the same in `sentinel.toml`; every problem is listed at once."""

import hashlib
import ipaddress
import json
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from sentinel_core import calendars, validation
from sentinel_core.durations import parse_duration
from sentinel_core.errors import ConfigError
from sentinel_core.series import Selector


@dataclass(frozen=True)
class AuthConfig:
    """How to authenticate to Prometheus; secrets are named by environment variable or file, never written down."""

    bearer_token_env: str | None = None
    username: str | None = None
    password_env: str | None = None
    headers_env: Mapping[str, str] = field(default_factory=dict)  # header name -> environment variable
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    insecure_skip_verify: bool = False


# Where a watch leaves a threshold alone: finetune, retrain. Those of "mae" suit a metric whose errors are around 0.1.
DRIFT_THRESHOLDS = {"mae": (0.1, 0.3), "scaled": (1.5, 3.0), "auto": (3.8, 3.8)}


@dataclass(frozen=True)
class WatchConfig:
    """One selector (or PromQL expression) with its model, horizon and schedule.

    A watch alone is not validated: the SentinelConfig that holds it lists the problems of all watches at once. The
    properties below hold for a valid watch.
    """

    metric: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    model_class: Any = "SeasonalRidgeModel"  # a built-in's name, a class, or "package.module:Class"
    granularity: str = "1m"
    horizon: str = "5m"
    lookback: str = "30m"
    cron: str = "0 */6 * * *"
    drift_finetune_threshold: float = None  # type: ignore[assignment]  # the unit's: see DRIFT_THRESHOLDS
    drift_retrain_threshold: float = None  # type: ignore[assignment]
    query: str | None = None  # any PromQL expression instead of metric + labels; needs `name`
    name: str | None = None
    history: str = "7d"
    drift_unit: str = "mae"  # "scaled": multiples of the training MAE; "auto": each series by what is usual for it
    drift_window: int = 60  # scored steps
    drift_cooldown: str = "15m"
    anomaly_quiet: str = "1h"  # after an alarm, what is not three times as bad scores at most 1
    kind: str = "auto"  # "gauge", "counter" (forecast as a rate per second), "auto": from metadata
    model_params: Mapping[str, Any] = field(default_factory=dict)
    model_timeout: str = "60s"  # one call of a person's own model
    bounds: Sequence[float] = ()  # lowest and highest value that is forecast; without: 0 for what was never negative
    level: float = 0.95  # nominal coverage of the forecasts' bounds
    inner_level: float | None = None  # of narrower bounds within them
    thresholds: Mapping[str, float] = field(default_factory=dict)  # "above", "below", or both: in the forecast's unit
    threshold_probability: float = 0.9  # of a series getting across one within the horizon: from here on an incident
    max_series: int = 10_000
    ignore: Sequence[str] = ()  # "2026-11-20", "2026-11-20T08:00/2026-11-20T12:30": not learnt from, not judged
    holidays: str | None = None  # "DE", "US-NY": forecast its public holidays as the last day of a weekend
    timezone: str = "UTC"  # of the days and times in `ignore`, and of holidays

    def __post_init__(self) -> None:
        finetune, retrain = DRIFT_THRESHOLDS.get(str(self.drift_unit), DRIFT_THRESHOLDS["mae"])
        for name, default in (("drift_finetune_threshold", finetune), ("drift_retrain_threshold", retrain)):
            if getattr(self, name) is None:
                object.__setattr__(self, name, default)

    @cached_property
    def step_seconds(self) -> int:
        """Spacing of the grid."""
        return parse_duration(self.granularity)

    @cached_property
    def horizon_steps(self) -> int:
        """Leads of one forecast."""
        return parse_duration(self.horizon) // self.step_seconds

    @cached_property
    def lookback_steps(self) -> int:
        """Lags before an origin."""
        return parse_duration(self.lookback) // self.step_seconds

    @cached_property
    def history_steps(self) -> int:
        """The most a model is trained on."""
        return parse_duration(self.history) // self.step_seconds

    @cached_property
    def quiet_steps(self) -> int:
        """How long an alarm keeps a series' anomaly score quiet."""
        return -(-parse_duration(self.anomaly_quiet) // self.step_seconds)

    @cached_property
    def selector(self) -> str:
        """Canonical text of metric and matchers; the name of a query.

        >>> WatchConfig(metric="up", labels={"job": "api", "env": "!=test"}).selector
        'up{env!="test",job="api"}'
        """
        if self.metric is None:
            return self.name or ""
        return str(Selector.of(self.metric, self.labels))

    @cached_property
    def ignored(self) -> calendars.Spans:
        """What `ignore` says, in unix seconds."""
        return calendars.spans(self.ignore, self.timezone)

    @cached_property
    def slug(self) -> str:
        """What the watch is called in partitions, tables and files: at most 63 of `[A-Za-z0-9_.-]`.

        It depends on what is forecast (expression, granularity, horizon), not on how (model, thresholds, schedule), so
        that a change of model keeps the history of the watch.

        >>> WatchConfig(metric="up").slug
        'up-48a2e891'
        """
        identity = [self.query or self.selector, self.name, self.step_seconds, self.horizon_steps]
        digest = hashlib.blake2b(json.dumps(identity).encode(), digest_size=4).hexdigest()
        return f"{re.sub('[^A-Za-z0-9_.-]', '_', self.name or self.metric or '')[:54]}-{digest}"

    @cached_property
    def model_path(self) -> str:
        """The model as text that another process understands: a built-in's name, or `package.module:Class`."""
        return validation.model_path(self.model_class)

    @cached_property
    def model_name(self) -> str:
        """The model's class without its module, as people call it.

        >>> WatchConfig(model_class="auto").model_name, WatchConfig(model_class="shop.models:Tides").model_name
        ('AutoModel', 'Tides')
        """
        return re.split("[:.]", self.model_path)[-1]

    @cached_property
    def spec_digest(self) -> str:
        """SHA-256 of the model a watch asks for: its class, grid, model_params, bounds and holidays."""
        spec = [self.model_path, self.step_seconds, self.horizon_steps, self.lookback_steps, dict(self.model_params)]
        if self.bounds:
            spec.append({"bounds": [float(bound) for bound in self.bounds]})
        if self.holidays is not None:
            spec.append({"holidays": self.holidays, "timezone": self.timezone})
        return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()

    def digest_until(self, end: int) -> str:
        """SHA-256 of what an artifact trained until `end` must have been made for: `spec_digest`, and what was ignored.

        A span that lies outside the history of that training changes nothing that it learnt.
        """
        start = end - parse_duration(self.history)
        ignored = [(max(first, start), min(last, end)) for first, last in self.ignored if last > start and first <= end]
        if not ignored:
            return self.spec_digest
        return hashlib.sha256(json.dumps([self.spec_digest, ignored]).encode()).hexdigest()


@dataclass(frozen=True)
class MonitorConfig:
    """How a model in production is compared with its past; a model's own settings may differ in any field.

    An "hour" is one `monitor_step`, a day 24 of them: the rule knows nothing else of time.
    """

    current_hours: int = 24  # the current window; divides a day, or is whole days
    max_current_days: int = 7  # it grows by whole days up to this where it holds too few samples
    baseline: str = "same_weekday"  # of the weeks before, once there are two; or "preceding": the days just before
    baseline_weeks: int = 4
    baseline_days: int = 7
    bins: int = 10
    min_samples: int = 200
    warn: float = 0.10  # of the adjusted PSI
    critical: float = 0.25
    resolve: float = 0.07
    silence: bool = True  # no data, where there used to be some, is an incident too


@dataclass(frozen=True)
class SentinelConfig:
    """The whole product; `SentinelConfig(...)` validates and raises one ConfigError with every problem."""

    prometheus_url: str = "http://localhost:9090"
    emitter_port: int = 8080
    artifact_store: str = "./sentinel_artifacts"
    max_versions_per_metric: int = 5
    scrape_timeout: float = 10.0
    emit_confidence_bounds: bool = False
    watches: Sequence[WatchConfig] = ()
    bind_address: str = "127.0.0.1"
    dagster_port: int = 3000
    sql_url: str | None = None  # default: sqlite in artifact_store
    data_url: str | None = None  # default: a folder in artifact_store
    settle_delay: str = "5s"  # a step is read this long after its time by Prometheus' clock
    window_retention: str = "30d"
    forecast_retention: str = "90d"
    emit_steps: Sequence[int] = ()  # leads shown on /metrics; empty: all
    auth: AuthConfig = field(default_factory=AuthConfig)
    external_url: str | None = None  # where people reach the sidecar: alerts link there; default: its own address
    require_login: bool = False  # to read the pages on loopback; elsewhere, and to change anything, always
    monitoring: MonitorConfig = field(default_factory=MonitorConfig)
    monitor_step: str = "1h"  # what the monitoring rule calls an hour; the demo shortens it
    forecast_incidents: bool = True  # high forecast drift that retraining did not cure opens one
    events_per_second: float = 100_000.0  # of one key that has no rate of its own
    event_retention: str = "42d"
    psi_retention: str = "400d"
    incident_retention: str = "400d"  # of closed and resolved ones, with their timeline
    audit_retention: str = "400d"
    alert_networks: Sequence[str] = ()  # private networks that receivers may lie in, as "10.0.0.0/8"
    query_passthrough: bool = True  # the query API answers what is not ours from prometheus_url
    query_timeout: str = "30s"  # of one query; its `timeout` may say less
    query_concurrency: int = 4  # queries evaluated at once
    query_samples: int = 50_000_000  # samples and values that one query may hold

    def __post_init__(self) -> None:
        problems = validation.problems(self)
        if problems:
            raise ConfigError(problems)
        object.__setattr__(self, "watches", tuple(self.watches))
        for watch in self.watches:  # equal to what another process has read from its file
            object.__setattr__(watch, "bounds", tuple(watch.bounds))
            object.__setattr__(watch, "ignore", tuple(watch.ignore))
        object.__setattr__(self, "emit_steps", tuple(self.emit_steps))
        object.__setattr__(self, "alert_networks", tuple(self.alert_networks))

    @cached_property
    def store_path(self) -> Path:
        """The artifact store as an absolute folder."""
        return Path(self.artifact_store).expanduser().resolve()

    @property
    def resolved_sql_url(self) -> str:
        """Where the catalogue and the small state are."""
        return self.sql_url or f"sqlite:///{self.store_path / 'sentinel.db'}"

    @property
    def resolved_data_url(self) -> str:
        """Where the segments and the artifacts are."""
        return self.data_url or (self.store_path / "data").as_uri()

    @cached_property
    def hour_seconds(self) -> int:
        """What the monitoring rule calls an hour."""
        return parse_duration(self.monitor_step)

    @property
    def public_url(self) -> str:
        """Where links in alerts point, without a slash at the end."""
        return (self.external_url or self.sidecar_url).rstrip("/")

    @property
    def dagster_url(self) -> str:
        """The address of Dagster's UI, from this machine."""
        return f"http://{_reachable(self.bind_address)}:{self.dagster_port}"

    @property
    def sidecar_url(self) -> str:
        """The address of the sidecar, from this machine."""
        return f"http://{_reachable(self.bind_address)}:{self.emitter_port}"

    def watch(self, slug: str) -> WatchConfig:
        """The watch with this slug; ConfigError names the ones there are."""
        for watch in self.watches:
            if watch.slug == slug:
                return watch
        known = ", ".join(watch.slug for watch in self.watches) or "none"
        raise ConfigError([f"no watch has the slug {slug!r}; configured: {known}"])

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, with the store's absolute path and models by name: what another process needs."""
        plain = _plain(self)
        plain["artifact_store"] = str(self.store_path)
        return plain

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "SentinelConfig":
        """Build from parsed TOML or JSON; unknown fields and every other problem are in one ConfigError."""
        problems: list[str] = []

        def known(table: Mapping[str, Any], target: type, where: str) -> dict[str, Any]:
            names = [entry.name for entry in fields(target)]
            problems.extend(validation.unknown_field(where + key, key, names) for key in table if key not in names)
            return {key: value for key, value in table.items() if key in names}

        values = known(data, cls, "")
        if isinstance(values.get("auth"), Mapping):
            values["auth"] = AuthConfig(**known(values["auth"], AuthConfig, "auth."))
        if isinstance(values.get("monitoring"), Mapping):
            values["monitoring"] = MonitorConfig(**known(values["monitoring"], MonitorConfig, "monitoring."))
        if isinstance(values.get("watches"), Sequence):
            values["watches"] = [
                WatchConfig(**known(table, WatchConfig, f"watches[{index}].")) if isinstance(table, Mapping) else table
                for index, table in enumerate(values["watches"])
            ]
        try:
            config = cls(**values)
        except ConfigError as error:
            raise ConfigError([*problems, *error.problems]) from None
        if problems:
            raise ConfigError(problems)
        return config


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, seen from itself.

    >>> [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "db.example")]
    [True, True, True, False, False]
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _reachable(bind_address: str) -> str:
    """The host to ask for what listens on an address: all addresses of a machine are reached by its loopback."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(bind_address, bind_address)
    return f"[{host}]" if ":" in host else host


def _plain(value: Any) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for entry in fields(value):
        item = getattr(value, entry.name)
        if entry.name == "model_class":
            item = value.model_path
        elif entry.name == "watches":
            item = [_plain(watch) for watch in item]
        elif isinstance(item, AuthConfig | MonitorConfig):
            item = _plain(item)
        elif isinstance(item, Mapping):
            item = dict(item)
        elif isinstance(item, tuple):
            item = list(item)
        plain[entry.name] = item
    return plain


def config_path(path: str | Path | None = None) -> Path | None:
    """The file that `load_config` reads: the given one, else $SENTINEL_CONFIG, else ./sentinel.toml, else none."""
    if path is None:
        path = os.environ.get("SENTINEL_CONFIG") or None
    if path is not None:
        return Path(path).expanduser().absolute()
    default = Path("sentinel.toml").absolute()
    return default if default.exists() else None


def load_config(path: str | Path | None = None) -> SentinelConfig:
    """Read a `.toml` or `.json` file (see `config_path`); the defaults, without watches, where there is none.

    A relative `artifact_store` is relative to the file, so that every command finds the same store from anywhere.
    """
    file = config_path(path)
    if file is None:
        return SentinelConfig()
    try:
        text = file.read_text(encoding="utf-8-sig")  # Windows' editors begin it with a byte order mark
        data = json.loads(text) if file.suffix == ".json" else tomllib.loads(text)
    except FileNotFoundError:
        raise ConfigError([f"{file}: no such file; write one with `sentinel init`"]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{file}: cannot be read: {error}"]) from None
    except (tomllib.TOMLDecodeError, json.JSONDecodeError) as error:
        kind = "JSON" if file.suffix == ".json" else "TOML"
        raise ConfigError([f"{file}: is not valid {kind}: {error}"]) from None
    if not isinstance(data, dict):
        raise ConfigError([f"{file}: is not a table of settings; see `sentinel init`"])
    store = data.get("artifact_store", SentinelConfig.artifact_store)
    if isinstance(store, str) and store and "://" not in store:  # those are refused as they stand
        data["artifact_store"] = str(file.parent / Path(store).expanduser())
    return SentinelConfig.from_dict(data)

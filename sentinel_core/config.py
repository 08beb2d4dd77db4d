"""What a person configures: dataclasses in Python, the same in `sentinel.toml`; every problem is listed at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


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


@dataclass(frozen=True)
class WatchConfig:
    """One selector (or PromQL expression) with its model, horizon and schedule."""

    metric: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    model_class: Any = None  # a class, a built-in's name, or "package.module:Class"
    granularity: str = "1m"
    horizon: str = "5m"
    lookback: str = "30m"
    cron: str = "0 */6 * * *"
    drift_finetune_threshold: float = 0.1
    drift_retrain_threshold: float = 0.3
    query: str | None = None  # any PromQL expression instead of metric + labels; needs `name`
    name: str | None = None
    history: str = "7d"
    drift_unit: str = "mae"  # or "scaled": multiples of the training MAE
    drift_window: int = 60  # scored steps
    drift_cooldown: str = "15m"
    kind: str = "auto"  # "gauge", "counter" (forecast as a rate per second), "auto": from metadata
    model_params: Mapping[str, Any] = field(default_factory=dict)
    model_timeout: str = "60s"  # one call of a person's own model
    level: float = 0.95  # nominal coverage of the bounds
    max_series: int = 10_000


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

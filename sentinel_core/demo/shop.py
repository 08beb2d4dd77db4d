"""What the demo watches: each built-in model, granularities from 15 s to 1 min, a counter, and a query.

And how it judges its models in production: an "hour" lasts five seconds.
"""

from dataclasses import replace

from sentinel_core.config import AuthConfig, MonitorConfig, SentinelConfig, WatchConfig
from sentinel_core.demo.production import STEP_SECONDS

WATCHES = (
    WatchConfig(
        metric="demo_latency_seconds",
        model_class="ExponentialSmoothingModel",
        granularity="15s",
        horizon="1m",
        lookback="5m",
        history="1d",
        drift_unit="auto",
        drift_window=20,
        drift_cooldown="5m",
    ),
    WatchConfig(
        metric="demo_cpu_ratio",
        bounds=(0, 1),
        inner_level=0.8,
        model_class="ARIMAModel",
        granularity="30s",
        horizon="5m",
        lookback="15m",
        history="2d",
        drift_finetune_threshold=0.05,
        drift_retrain_threshold=0.1,
        drift_window=20,
    ),
    WatchConfig(
        metric="demo_requests_total",
        labels={"route": "/search"},
        model_class="SGDRegressorModel",
        horizon="10m",
        drift_finetune_threshold=12.0,
        drift_retrain_threshold=24.0,
    ),
    WatchConfig(
        metric="demo_queue_depth",
        labels={"queue": "=~mail|orders"},
        horizon="15m",
        lookback="1h",
        drift_unit="auto",
    ),
    WatchConfig(
        metric="demo_disk_used_ratio",
        bounds=(0, 1),
        model_class="LinearTrendModel",
        horizon="1h",
        lookback="1h",
        drift_finetune_threshold=0.005,
        drift_retrain_threshold=0.02,
        thresholds={"above": 0.9},  # one of the disks is fuller than that: its incident opens with the first forecast
    ),
    WatchConfig(
        query="sum(rate(demo_requests_total[1m]))",
        name="demo_requests_per_second",
        drift_unit="auto",
    ),
)


def demo_config(base: SentinelConfig) -> SentinelConfig:
    """The demo's watches at the addresses of `base`; where `base` has watches of its own, in a store beside theirs."""
    store = base.store_path / "demo" if base.watches else base.store_path
    return replace(
        base,
        watches=WATCHES,
        auth=AuthConfig(),
        artifact_store=str(store),
        sql_url=None,
        data_url=None,
        emit_steps=(),
        emit_confidence_bounds=True,
        monitoring=MonitorConfig(),
        monitor_step=f"{STEP_SECONDS}s",
        alert_networks=("127.0.0.0/8",),  # its receiver is on this machine
    )

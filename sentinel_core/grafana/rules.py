"""Recording and alert rules, as data for `generate`.

`forecasts` look ahead, so they are evaluated against Sentinel's own query API (by vmalert, or by any ruler with a
Prometheus datasource), and so are the recordings of `quality`, for a ruler that has somewhere to write to; `sentinel`
are for a Prometheus that scrapes Sentinel, and watch over Sentinel itself.
"""

from typing import Any


def record(name: str, expr: str) -> dict[str, Any]:
    """A recording rule."""
    return {"record": name, "expr": expr}


def alert(name: str, expr: str, summary: str, description: str, *, wait: str = "", severity: str) -> dict[str, Any]:
    """An alert rule; `wait` is how long the expression has to hold."""
    rule: dict[str, Any] = {"alert": name, "expr": expr}
    if wait:
        rule["for"] = wait
    annotations = {"summary": summary, "description": description}
    return {**rule, "labels": {"severity": severity}, "annotations": annotations}


_NOT_FORECAST = "ignoring(sentinel_horizon, sentinel_version)"

QUALITY = [
    {
        "name": "sentinel-forecast-quality",
        "interval": "1m",
        "rules": [
            record("lead:sentinel_mase:avg", 'avg by (sentinel_lead) ({__name__=~".+_sentinel_mase"})'),
            record("lead:sentinel_coverage:avg", 'avg by (sentinel_lead) ({__name__=~".+_sentinel_coverage"})'),
            record("job:sentinel_anomaly_score:max", 'max by (job) ({__name__=~".+_sentinel_anomaly_score"})'),
        ],
    }
]

FORECASTS = [
    {
        "name": "sentinel-forecasts",
        "interval": "1m",
        "rules": [
            alert(
                "ForecastDiskFull",
                # without the version, as a retraining is no new alert
                "max without (sentinel_version) "
                '(max_over_time({__name__=~".*disk.*(used|usage)_ratio_sentinel_predicted"}[1h] offset -1h)) > 0.9',
                "A disk is expected to be 90 % full within the hour",
                "Expected: {{ $value | humanizePercentage }} of the disk of {{ $labels.instance }}.",
                severity="warning",
            ),
            alert(
                "ForecastFilesystemFull",
                "min_over_time(node_filesystem_avail_bytes_sentinel_predicted[1h] offset -1h)"
                f" / {_NOT_FORECAST} node_filesystem_size_bytes < 0.1",
                "{{ $labels.mountpoint }} of {{ $labels.instance }} is expected to have less than 10 % left",
                "Expected: {{ $value | humanizePercentage }} left within the hour. node_filesystem_size_bytes comes "
                "from Prometheus through Sentinel: query_passthrough has to be on.",
                severity="warning",
            ),
            alert(
                "ForecastWorseThanNaive",
                'quantile by (sentinel_lead) (0.5, {__name__=~".+_sentinel_mase"}) > 1.2',
                "Forecasts {{ $labels.sentinel_lead }} ahead are worse than repeating yesterday",
                'The median MASE is {{ $value | printf "%.2f" }}. Look at the dashboard Forecast quality, and choose '
                "another model_class or a longer history for the watches that stand out.",
                wait="1h",
                severity="warning",
            ),
            alert(
                "ForecastAnomaly",
                # real series are above 1 up to twice a day, above 2 once in two days or much less
                'max_over_time({__name__=~".+_sentinel_anomaly_score"}[10m]) > 2',
                "A series is far from what was forecast of it",
                'Its anomaly score is {{ $value | printf "%.1f" }}; 1 would be the least alarm. '
                "What lasts is no new alert for as long as the anomaly_quiet of its watch.",
                severity="warning",
            ),
            alert(
                "ForecastGone",
                'absent(max_over_time({__name__=~".+_sentinel_predicted"}[1h] offset -1h))',
                "No series has a forecast for the next hour",
                "The ticks have stopped, or nothing is watched: look at Sentinel's first page and at Dagster's runs.",
                wait="10m",
                severity="critical",
            ),
        ],
    },
]

SELF = [
    {
        "name": "sentinel",
        "rules": [
            alert(
                "SentinelDown",
                'up{job="sentinel"} == 0 or absent(up{job="sentinel"})',
                "Sentinel does not answer",
                "Start it again with `sentinel up`, and read its log.",
                wait="5m",
                severity="critical",
            ),
            alert(
                "SentinelStoreUnreadable",
                "sentinel_store_up == 0",
                "The sidecar cannot read its store",
                "It goes on showing what it last read. Its first page says why; a full disk is the usual reason.",
                wait="5m",
                severity="critical",
            ),
            alert(
                "SentinelConfigRefused",
                "sentinel_config_last_reload_successful == 0",
                "The configuration could not be read again",
                "The one before is in use. `sentinel check` lists what is wrong.",
                severity="warning",
            ),
            alert(
                "SentinelWatchStale",
                "sentinel_watch_staleness_seconds > 900",
                "{{ $labels.watch }} has not been forecast for {{ $value | humanizeDuration }}",
                "Prometheus does not answer, or the ticks fail: look at the watch's page and at Dagster's runs.",
                wait="5m",
                severity="warning",
            ),
            alert(
                "SentinelSourceFails",
                'sum by (job, instance) (rate(sentinel_source_requests_total{outcome!="ok"}[15m]))'
                " / sum by (job, instance) (rate(sentinel_source_requests_total[15m])) > 0.1",
                "{{ $value | humanizePercentage }} of the requests to Prometheus fail",
                "Windows have gaps while this lasts. The watches' pages show what Prometheus says.",
                wait="15m",
                severity="warning",
            ),
            alert(
                "SentinelDriftHigh",
                "sentinel_drift_severity == 2",
                "Forecasts of {{ $labels.watch }} are far off, and retraining has not cured it",
                "Something has changed for good, or the model does not fit: look at its forecast in Grafana.",
                wait="1h",
                severity="warning",
            ),
            alert(
                "SentinelModelDrift",
                "sentinel_model_severity == 2",
                "{{ $labels.model }} of {{ $labels.project }} drifts critically",
                "Its outputs are distributed differently than before: the incident's page shows how.",
                severity="critical",
            ),
            alert(
                "SentinelModelSilent",
                "sentinel_model_state == 4",
                "{{ $labels.model }} of {{ $labels.project }} sends no events any more",
                "It used to at this time of the week. Look at the service that sends them.",
                wait="1h",
                severity="warning",
            ),
            alert(
                "SentinelEventsWait",
                "time() - sentinel_event_log_oldest_timestamp_seconds > 900",
                "Events have waited {{ $value | humanizeDuration }} for their evaluation",
                "Nothing is lost. Look at the runs of the job `monitor` in Dagster.",
                wait="5m",
                severity="warning",
            ),
            alert(
                "SentinelAlertsGivenUp",
                'sentinel_deliveries{state="dead"} > 0',
                "{{ $value }} alerts were not taken by their receivers",
                "The receivers' page says why; correct the receiver and send them again.",
                severity="warning",
            ),
        ],
    }
]

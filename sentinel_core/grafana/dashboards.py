"""The dashboards, as data for `generate`: forecast, quality, fleet, models in production, and Sentinel itself."""

from grafana_foundation_sdk.builders.dashboard import Dashboard

from sentinel_core.grafana.panels import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    RED,
    Query,
    between,
    coloured,
    lines,
    number,
    page,
    rows,
    states,
    variable,
)

SEVERITY = {"0": ("none", GREEN), "1": ("low", ORANGE), "2": ("high", RED)}
MODEL_STATE = {
    "0": ("ok", GREEN),
    "1": ("warning", ORANGE),
    "2": ("critical", RED),
    "3": ("insufficient data", GREY),
    "4": ("no data", GREY),
}
INCIDENT = {"0": ("none", GREEN), "1": ("warn", ORANGE), "2": ("critical", RED)}
UP = {"0": ("no", RED), "1": ("yes", GREEN)}

_OF_METRIC = '$label=~"$value"'
_OF_FORECAST = f'{_OF_METRIC},sentinel_horizon="$horizon"'
_NOT_FORECAST = "ignoring(sentinel_horizon, sentinel_version, sentinel_lead)"


def forecast() -> Dashboard:
    """What a metric did, what it will do, and what was expected of it earlier."""
    main = lines(
        "$metric: actual and forecast, $value",
        [
            Query(f"${{metric}}_sentinel_actual{{{_OF_METRIC}}}", "actual"),
            Query(f"${{metric}}_sentinel_predicted{{{_OF_FORECAST}}}", "forecast"),
            Query(f"${{metric}}_sentinel_predicted_lower{{{_OF_FORECAST}}}", "lower"),
            Query(f"${{metric}}_sentinel_predicted_upper{{{_OF_FORECAST}}}", "upper"),
            Query(f"${{metric}}_sentinel_predicted_inner_lower{{{_OF_FORECAST}}}", "inner lower"),
            Query(f"${{metric}}_sentinel_predicted_inner_upper{{{_OF_FORECAST}}}", "inner upper"),
        ],
        about="Each time has the newest forecast made for it, with its bounds; what lies ahead of now is the future.",
        width=24,
        height=12,
    ).repeat("value")
    main = between(between(main, "lower", "upper"), "inner lower", "inner upper")
    main = coloured(coloured(main, "actual", GREEN), "forecast", BLUE, dashed=True)
    earlier = lines(
        "As it was predicted $lead before",
        [
            Query(f"${{metric}}_sentinel_actual{{{_OF_METRIC}}}"),
            Query(f'${{metric}}_sentinel_predicted{{{_OF_FORECAST},sentinel_lead="$lead"}}'),
        ],
        about="Every point of the forecast was made the chosen lead before its time.",
    )
    residual = lines(
        "Actual minus forecast, $lead before",
        [
            Query(
                f"${{metric}}_sentinel_actual{{{_OF_METRIC}}} - {_NOT_FORECAST} group_right() "
                f'${{metric}}_sentinel_predicted{{{_OF_FORECAST},sentinel_lead="$lead"}}'
            )
        ],
        about="Around zero where the model fits; a lasting side is a bias, a growing spread is drift.",
    )
    unusual = lines(
        "Anomaly score",
        [Query(f"${{metric}}_sentinel_anomaly_score{{{_OF_FORECAST}}}")],
        about="0 where the value is as forecast, 1 at the edge of the bounds, above it beyond them.",
        ends=(0, None),
        limits=[(1, ORANGE)],
        width=24,
    )
    return (
        page(
            "sentinel-forecast",
            "Sentinel / Forecast",
            "A metric beside its forecast, into the future.",
            since="now-3h",
            until="now+1h",
        )
        .with_variable(
            variable(
                "metric",
                "Metric",
                'label_values({__name__=~".+_sentinel_predicted"}, __name__)',
                regex="/^(.+)_sentinel_predicted$/",
            )
        )
        .with_variable(variable("horizon", "Horizon", "label_values(${metric}_sentinel_predicted, sentinel_horizon)"))
        .with_variable(
            variable("label", "Label", "label_names(${metric}_sentinel_predicted)", regex="/^(?!__name__$).+$/")
        )
        .with_variable(
            variable(
                "value",
                "Value",
                'label_values(${metric}_sentinel_predicted{sentinel_horizon="$horizon"}, $label)',
                many=True,
            )
        )
        .with_variable(
            variable(
                "lead",
                "Lead",
                'label_values(${metric}_sentinel_coverage{sentinel_horizon="$horizon"}, sentinel_lead)',
            )
        )
        .with_panel(main)
        .with_panel(earlier)
        .with_panel(residual)
        .with_panel(unusual)
    )


def quality() -> Dashboard:
    """How good the forecasts are: error beside the seasonal naive, coverage beside the level, drift."""
    mase = lines(
        "MASE by lead",
        [Query('avg by (sentinel_lead) (${metric}_sentinel_mase{sentinel_horizon="$horizon"})', "{{sentinel_lead}}")],
        about="Mean error over that of repeating yesterday; below 1 the model is better than that.",
        ends=(0, 1.2),
        limits=[(1, ORANGE)],
    )
    coverage = lines(
        "Coverage of the bounds by lead",
        [
            Query(
                'avg by (sentinel_lead) (${metric}_sentinel_coverage{sentinel_horizon="$horizon"})',
                "{{sentinel_lead}}",
            )
        ],
        about="Share of actual values inside the bounds; compare with the level of the watch (0.95 unless set).",
        unit="percentunit",
        ends=(0.5, 1),
        limits=[(0.95, GREY)],
    )
    drift = lines(
        "Drift: the ten worst series",
        [Query('topk(10, ${metric}_sentinel_drift_mae{sentinel_horizon="$horizon"})')],
        about="Rolling error in the drift_unit of the watch, as the thresholds see it.",
        ends=(0, None),
    )
    outside = lines(
        "Series outside of their bounds",
        [
            Query(
                f"count(${{metric}}_sentinel_actual > {_NOT_FORECAST} "
                '${metric}_sentinel_predicted_upper{sentinel_horizon="$horizon"}) or vector(0)',
                "above",
            ),
            Query(
                f"count(${{metric}}_sentinel_actual < {_NOT_FORECAST} "
                '${metric}_sentinel_predicted_lower{sentinel_horizon="$horizon"}) or vector(0)',
                "below",
            ),
        ],
        about="How many series are where the newest forecast did not expect them.",
        ends=(0, None),
    )
    severity = states(
        "Severity of every watch",
        Query("sentinel_drift_severity", "{{watch}}"),
        SEVERITY,
        about="Of the worst series of each watch; low finetunes, high retrains.",
    )
    return (
        page("sentinel-quality", "Sentinel / Forecast quality", "How good the forecasts of a metric are.")
        .with_variable(
            variable(
                "metric",
                "Metric",
                'label_values({__name__=~".+_sentinel_mase"}, __name__)',
                regex="/^(.+)_sentinel_mase$/",
            )
        )
        .with_variable(variable("horizon", "Horizon", "label_values(${metric}_sentinel_mase, sentinel_horizon)"))
        .with_panel(mase)
        .with_panel(coverage)
        .with_panel(drift)
        .with_panel(outside)
        .with_panel(severity)
    )


def fleet() -> Dashboard:
    """All watches at a glance."""
    watch = 'watch=~"$watch"'
    return (
        page("sentinel-fleet", "Sentinel / Fleet", "Every watch: what it reads, what serves, how far off it is.")
        .with_variable(variable("watch", "Watch", "label_values(sentinel_watch_info, watch)", many=True))
        .with_panel(number("Watches", Query(f"count(sentinel_watch_info{{{watch}}})")))
        .with_panel(number("Series", Query(f"sum(sentinel_watch_series{{{watch}}})")))
        .with_panel(
            number(
                "Drifting series",
                Query(f'sum(sentinel_drift_series{{{watch},severity!="none"}})'),
                limits=[(None, GREEN), (1, ORANGE)],
            )
        )
        .with_panel(
            number(
                "Oldest forecast",
                Query(f"time() - min(sentinel_watch_forecast_origin_timestamp_seconds{{{watch}}})"),
                unit="s",
                limits=[(None, GREEN), (600, ORANGE), (3600, RED)],
            )
        )
        .with_panel(
            number(
                "Unreadable watches",
                Query(f"count(sentinel_watch_readable{{{watch}}} == 0) or vector(0)"),
                limits=[(None, GREEN), (1, RED)],
            )
        )
        .with_panel(number("Rollbacks that hold", Query(f"sum(sentinel_watch_pinned{{{watch}}})")))
        .with_panel(
            rows(
                "Watches",
                [
                    Query(f"sentinel_watch_info{{{watch}}}"),
                    Query(f"sentinel_watch_model_version{{{watch}}}"),
                    Query(f"sentinel_watch_staleness_seconds{{{watch}}}"),
                    Query(f"sentinel_drift_mae{{{watch}}}"),
                ],
                names={
                    "Value #B": "version",
                    "Value #C": "seconds since success",
                    "Value #D": "drift of the worst series",
                },
                hide=["Value #A"],
            )
        )
        .with_panel(states("Severity", Query(f"sentinel_drift_severity{{{watch}}}", "{{watch}}"), SEVERITY))
        .with_panel(
            lines(
                "MASE of a day's forecasts",
                [Query(f"sentinel_forecast_mase{{{watch}}}", "{{watch}} {{lead}} ahead")],
                about="Median over series; below 1 the forecasts are better than repeating the day before.",
                ends=(0, 1.2),
                limits=[(1, ORANGE)],
            )
        )
        .with_panel(
            lines(
                "Coverage of a day's bounds",
                [Query(f"sentinel_forecast_coverage{{{watch}}}", "{{watch}} {{lead}} ahead")],
                about="Share of actual values inside the bounds; compare with the level of the watch.",
                unit="percentunit",
                ends=(0.5, 1),
                limits=[(0.95, GREY)],
            )
        )
        .with_panel(
            lines(
                "Series by what their forecast comes from",
                [Query(f"sum by (state) (sentinel_watch_series{{{watch}}})", "{{state}}")],
                ends=(0, None),
            )
        )
        .with_panel(
            lines(
                "Share of the lookback collected",
                [Query(f"sentinel_watch_buffer_fill_ratio{{{watch}}}", "{{watch}}")],
                unit="percentunit",
                ends=(0, 1),
            )
        )
    )


def production() -> Dashboard:
    """Models in production: drift of their outputs, and the incidents of it."""
    chosen = 'project=~"$project",model=~"$model"'
    psi = lines(
        "PSI of $model",
        [
            Query(f"sentinel_model_psi{{{chosen}}}", "{{model}}: PSI"),
            Query(f"sentinel_model_psi_adjusted{{{chosen}}}", "{{model}}: adjusted"),
            Query(f"sentinel_model_psi_limit{{{chosen}}}", "{{model}}: end of the normal range"),
        ],
        about="Adjusted is what the thresholds are for: the PSI less what chance alone makes of it.",
        ends=(0, 0.3),
        limits=[(0.1, ORANGE), (0.25, RED)],
        width=24,
    )
    return (
        page("sentinel-models", "Sentinel / Models in production", "Drift of production models, and its incidents.")
        .with_variable(variable("project", "Project", "label_values(sentinel_model_enabled, project)", many=True))
        .with_variable(
            variable("model", "Model", 'label_values(sentinel_model_enabled{project=~"$project"}, model)', many=True)
        )
        .with_panel(number("Models", Query(f"count(sentinel_model_enabled{{{chosen}}} == 1)")))
        .with_panel(
            number(
                "Models with an incident",
                Query(f"count(sentinel_model_severity{{{chosen}}} > 0) or vector(0)"),
                limits=[(None, GREEN), (1, RED)],
            )
        )
        .with_panel(number("Worst adjusted PSI", Query(f"max(sentinel_model_psi_adjusted{{{chosen}}})")))
        .with_panel(
            number("Events a second", Query(f"sum(rate(sentinel_model_events_total{{{chosen}}}[5m]))"), unit="reqps")
        )
        .with_panel(
            number(
                "Oldest last event",
                Query(f"time() - min(sentinel_model_last_event_timestamp_seconds{{{chosen}}})"),
                unit="s",
            )
        )
        .with_panel(
            number(
                "Alerts given up",
                Query('sentinel_deliveries{state="dead"}'),
                limits=[(None, GREEN), (1, RED)],
            )
        )
        .with_panel(psi)
        .with_panel(states("State", Query(f"sentinel_model_state{{{chosen}}}", "{{model}}"), MODEL_STATE))
        .with_panel(
            states("Severity of incidents", Query(f"sentinel_model_severity{{{chosen}}}", "{{model}}"), INCIDENT)
        )
        .with_panel(rows("Incidents", [Query('sentinel_incidents{project=~"$project"}')], names={"Value": "incidents"}))
    )


def itself() -> Dashboard:
    """Sentinel watched by itself: is it up, is it fast, does it lose or owe anything."""
    return (
        page("sentinel-itself", "Sentinel / Sentinel itself", "The health of Sentinel.")
        .with_panel(number("Store readable", Query("sentinel_store_up"), words=UP))
        .with_panel(number("Configuration read", Query("sentinel_config_last_reload_successful"), words=UP))
        .with_panel(
            number("Events waiting", Query("sentinel_event_log_events"), limits=[(None, GREEN), (1_000_000, ORANGE)])
        )
        .with_panel(number("Alerts owed", Query('sentinel_deliveries{state="pending"}')))
        .with_panel(number("Age of what is shown", Query("time() - sentinel_snapshot_timestamp_seconds"), unit="s"))
        .with_panel(number("Clock skew to Prometheus", Query("sentinel_clock_skew_seconds"), unit="s"))
        .with_panel(
            lines(
                "Requests a second",
                [Query("sum by (route) (rate(sentinel_http_requests_total[5m]))", "{{route}}")],
                unit="reqps",
                ends=(0, None),
            )
        )
        .with_panel(
            lines(
                "Time to the answer, 99th percentile",
                [
                    Query(
                        "histogram_quantile(0.99, sum by (route, le) (rate(sentinel_http_request_seconds_bucket[5m])))",
                        "{{route}}",
                    )
                ],
                unit="s",
                ends=(0, None),
            )
        )
        .with_panel(
            lines(
                "Forecasts and samples a second",
                [
                    Query("rate(sentinel_forecasts_total[5m])", "forecasts"),
                    Query("rate(sentinel_scraped_samples_total[5m])", "samples read"),
                ],
                ends=(0, None),
            )
        )
        .with_panel(
            lines(
                "Requests to Prometheus",
                [
                    Query(
                        "sum by (endpoint, outcome) (rate(sentinel_source_requests_total[5m]))",
                        "{{endpoint}} {{outcome}}",
                    )
                ],
                unit="reqps",
                ends=(0, None),
            )
        )
        .with_panel(
            lines(
                "Trainings",
                [Query("sum by (kind, outcome) (increase(sentinel_trainings_total[1h]))", "{{kind}} {{outcome}}")],
                about="Over the last hour.",
                ends=(0, None),
            )
        )
        .with_panel(
            lines(
                "Queries answered a second",
                [
                    Query(
                        "sum by (endpoint, outcome) (rate(sentinel_query_requests_total[5m]))",
                        "{{endpoint}} {{outcome}}",
                    )
                ],
                unit="reqps",
                ends=(0, None),
            )
        )
    )


DASHBOARDS = (forecast, quality, fleet, production, itself)

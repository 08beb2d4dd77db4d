"""The tables of the SQL store. Times are unix seconds (float where written by a clock, integer where on the grid).

Created and changed by the migrations beside this file only; a test proves that they agree.
"""

import sqlalchemy as sa

metadata = sa.MetaData()

segments = sa.Table(  # immutable Parquet files; one exists for readers once its row has committed
    "segments",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("dataset", sa.String(32), nullable=False),  # see segments.DATASETS
    sa.Column("key", sa.String(64), nullable=False),  # the step in seconds
    sa.Column("t0", sa.BigInteger, nullable=False),  # least and greatest timestamp inside
    sa.Column("t1", sa.BigInteger, nullable=False),
    sa.Column("path", sa.Text, nullable=False, unique=True),
    sa.Column("rows", sa.BigInteger, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("dropped_at", sa.Float),
    sa.Column(
        "position", sa.BigInteger
    ),  # overlay order where it is not the id: the newest segment merged into this one
    sa.Column("thinned", sa.Boolean, nullable=False, server_default=sa.false()),  # forecasts: only some leads are left
    sa.Index("segments_live", "dataset", "key", "t1"),
    sqlite_autoincrement=True,
)

watches = sa.Table(
    "watches",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("slug", sa.String(80), nullable=False, unique=True),
    sa.Column("selector", sa.Text, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("retired_at", sa.Float),
    sqlite_autoincrement=True,
)

watch_state = sa.Table(  # one row per watch, rewritten by every tick
    "watch_state",
    metadata,
    sa.Column("watch_id", sa.Integer, sa.ForeignKey("watches.id"), primary_key=True),
    sa.Column("kind", sa.String(16)),  # gauge | counter, once known
    sa.Column("scrape_interval", sa.Float),  # seconds, measured
    sa.Column("scraped_until", sa.BigInteger),  # newest grid timestamp that was asked for
    sa.Column("last_tick_at", sa.Float),  # when a tick last succeeded
    sa.Column("last_error", sa.Text),
    sa.Column("last_error_at", sa.Float),
    sa.Column("series_live", sa.Integer, nullable=False, server_default="0"),
    sa.Column("buffer_fill", sa.Float, nullable=False, server_default="0"),  # 0 … 1 of lookback
    sa.Column("forecast_origin", sa.BigInteger),
    sa.Column("forecast_segment_id", sa.Integer, sa.ForeignKey("segments.id")),
    sa.Column("scored_until", sa.BigInteger),
    sa.Column("verified_until", sa.BigInteger),  # end of the newest round of forecast_quality
    sa.Column("severity", sa.String(8)),  # none | low | high
    sa.Column("drift_mae", sa.Float),  # of the worst series, in the watch's drift_unit
    sa.Column("drift_low", sa.Integer, nullable=False, server_default="0"),  # series at low severity
    sa.Column("drift_high", sa.Integer, nullable=False, server_default="0"),
    sa.Column("drift_scored", sa.Integer, nullable=False, server_default="0"),  # series with a verdict
    sa.Column("unlearnt", sa.Integer, nullable=False, server_default="0"),  # live series no version has learnt
)

forecast_quality = sa.Table(  # how good the forecasts of a watch and lead were over the day before `ts`
    "forecast_quality",
    metadata,
    sa.Column("watch_id", sa.Integer, sa.ForeignKey("watches.id"), primary_key=True),
    sa.Column("ts", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("lead_seconds", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("samples", sa.BigInteger, nullable=False),
    sa.Column("series", sa.Integer, nullable=False),
    sa.Column("mae", sa.Float, nullable=False),  # median over series, as the others; see verification.Quality
    sa.Column("mase", sa.Float),
    sa.Column("bias", sa.Float, nullable=False),
    sa.Column("coverage", sa.Float, nullable=False),
    sa.Column("above", sa.Float, nullable=False),
    sa.Column("level", sa.Float, nullable=False),
    sa.Column("better_share", sa.Float, nullable=False),
    sa.Index("forecast_quality_ts", "ts"),  # retention
)

coverage = sa.Table(  # spans of the grid that were asked for, merged; holes are what a backfill has to fill
    "coverage",
    metadata,
    sa.Column("watch_id", sa.Integer, sa.ForeignKey("watches.id"), primary_key=True),
    sa.Column("t0", sa.BigInteger, primary_key=True),
    sa.Column("t1", sa.BigInteger, nullable=False),
)

series = sa.Table(
    "series",
    metadata,
    sa.Column("watch_id", sa.Integer, sa.ForeignKey("watches.id"), primary_key=True),
    sa.Column("fingerprint", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("labels", sa.Text, nullable=False),  # JSON object, without __name__
    sa.Column("first_seen", sa.BigInteger, nullable=False),
    sa.Column("vanished_at", sa.BigInteger),  # NULL while it lives
    sa.Column("model", sa.Text),  # that forecasts it, which a watch may choose for each; NULL before any has learnt it
)

model_versions = sa.Table(
    "model_versions",
    metadata,
    sa.Column("watch_id", sa.Integer, sa.ForeignKey("watches.id"), primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),  # 1, 2, … never reused
    sa.Column("parent", sa.Integer),
    sa.Column("kind", sa.String(16), nullable=False),  # cold_start | retrain | finetune
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("model_class", sa.Text, nullable=False),
    sa.Column("spec_digest", sa.String(64), nullable=False),  # of class, grid, model_params and what was ignored
    sa.Column("path", sa.Text, nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("feature_names", sa.Text, nullable=False),  # JSON list
    sa.Column("series", sa.Integer, nullable=False),
    sa.Column("series_refitted", sa.Integer, nullable=False),
    sa.Column("span_start", sa.BigInteger, nullable=False),
    sa.Column("span_end", sa.BigInteger, nullable=False),
    sa.Column("mae", sa.Float),  # median over series of the held-back MAE
    sa.Column("champion_mae", sa.Float),
    sa.Column("coverage", sa.Float),  # measured share of held-back actuals inside the bounds
    sa.Column("accepted", sa.Boolean, nullable=False),
    sa.Column("run_id", sa.String(64)),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("deleted_at", sa.Float),  # the artifact is gone; the row stays
)

active_models = sa.Table(  # which version serves; changed by compare-and-set on `version`
    "active_models",
    metadata,
    sa.Column("watch_id", sa.Integer, sa.ForeignKey("watches.id"), primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("pinned", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("changed_at", sa.Float, nullable=False),
)

activations = sa.Table(  # every change of active_models, oldest first
    "activations",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("watch_id", sa.Integer, sa.ForeignKey("watches.id"), nullable=False, index=True),
    sa.Column("action", sa.String(16), nullable=False),  # promote | rollback | release
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("previous", sa.Integer),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("run_id", sa.String(64)),
    sa.Column("created_at", sa.Float, nullable=False),
    sqlite_autoincrement=True,
)

actions = sa.Table(  # decisions to train, each leased to one run
    "actions",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("watch_id", sa.Integer, sa.ForeignKey("watches.id"), nullable=False, index=True),
    sa.Column("kind", sa.String(16), nullable=False),  # cold_start | finetune | retrain
    sa.Column("cause", sa.String(16), nullable=False),  # first | configuration | drift | new_series | schedule | person
    sa.Column("decided_at", sa.Float, nullable=False),
    sa.Column("lease_until", sa.Float, nullable=False),
    sa.Column("run_id", sa.String(64)),
    sa.Column("finished_at", sa.Float),
    sa.Column("outcome", sa.String(16)),  # promoted | held | rejected | failed | died | superseded
    sa.Column("detail", sa.Text),
    sqlite_autoincrement=True,
)

counters = sa.Table(  # self-metrics of short-lived processes, summed here and shown by the sidecar
    "counters",
    metadata,
    sa.Column("name", sa.String(128), primary_key=True),
    sa.Column("labels", sa.String(512), primary_key=True),  # JSON object with sorted keys
    sa.Column("value", sa.Float, nullable=False),
)

changes = sa.Table(  # one row: every write transaction on PostgreSQL bumps it, so it is queue and change token in one
    "changes",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("value", sa.BigInteger, nullable=False),
)

# ---- models in production --------------------------------------------------------------------------------------------

projects = sa.Table(  # tenants: a key belongs to one, and sees nothing of another
    "projects",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String(64), nullable=False, unique=True),
    sa.Column("monitor_new_models", sa.Boolean, nullable=False, server_default=sa.true()),
    sa.Column("created_at", sa.Float, nullable=False),
    sqlite_autoincrement=True,
)

monitored_models = sa.Table(
    "monitored_models",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),  # never reused: segments name it
    sa.Column("project_id", sa.Integer, sa.ForeignKey("projects.id"), nullable=False),
    sa.Column("name", sa.String(200), nullable=False),  # the model_id of its events
    sa.Column("enabled", sa.Boolean, nullable=False),  # whether it is evaluated
    sa.Column("settings", sa.Text, nullable=False, server_default="{}"),  # JSON: what differs from MonitorSettings
    sa.Column("baseline_version", sa.Integer),  # of the baselines, that counts and evaluations use; NULL: none yet
    sa.Column("events", sa.BigInteger, nullable=False, server_default="0"),  # drained, duplicates not counted
    sa.Column("first_event_at", sa.BigInteger),  # event times of what was drained, unix seconds
    sa.Column("last_event_at", sa.BigInteger),
    sa.Column("revision", sa.Integer, nullable=False, server_default="0"),  # compare-and-set of settings and baseline
    sa.Column("created_at", sa.Float, nullable=False),
    sa.UniqueConstraint("project_id", "name"),
    sqlite_autoincrement=True,
)

monitor_states = sa.Table(  # the newest evaluation of each model, as the page and /metrics show it
    "monitor_states",
    metadata,
    sa.Column("model_id", sa.Integer, sa.ForeignKey("monitored_models.id"), primary_key=True),
    sa.Column("hour", sa.BigInteger, nullable=False),  # end of the evaluated hour, unix seconds
    sa.Column("state", sa.String(16), nullable=False),  # ok | warning | critical | insufficient_data | no_data
    sa.Column("assessment", sa.Text, nullable=False),  # JSON of monitoring.Assessment
)

baselines = sa.Table(  # the bins that counts are made over, and what is compared with; a version never changes
    "baselines",
    metadata,
    sa.Column("model_id", sa.Integer, sa.ForeignKey("monitored_models.id"), primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),  # 1, 2, … never reused
    sa.Column("kind", sa.String(16), nullable=False),  # sliding | pinned | accepted
    sa.Column("t0", sa.BigInteger, nullable=False),  # span of the events that the bins were made from
    sa.Column("t1", sa.BigInteger, nullable=False),
    sa.Column("bins", sa.Text, nullable=False),  # JSON: output -> monitoring.Bins, and counts where it is pinned
    sa.Column("actor", sa.String(120), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
)

label_names = sa.Table(  # events hold fingerprints of labels; the first thousand of a model have their text here
    "label_names",
    metadata,
    sa.Column("model_id", sa.Integer, sa.ForeignKey("monitored_models.id"), primary_key=True),
    sa.Column("label", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("name", sa.Text, nullable=False),
)

event_log = sa.Table(  # acknowledged events that no segment holds yet; a row is one group commit
    "event_log",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),  # 200 a second for years
    sa.Column("received_at", sa.Float, nullable=False),
    sa.Column("events", sa.Integer, nullable=False),
    sa.Column("payload", sa.LargeBinary, nullable=False),  # see event_log.py
    sqlite_autoincrement=True,
)

late_hours = sa.Table(  # hours already evaluated that events came for since
    "late_hours",
    metadata,
    sa.Column("model_id", sa.Integer, sa.ForeignKey("monitored_models.id"), primary_key=True),
    sa.Column("hour", sa.BigInteger, primary_key=True, autoincrement=False),  # its start
)

monitor_progress = sa.Table(  # one row: how far everything was evaluated; drain and evaluation compare-and-set it
    "monitor_progress",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("evaluated_until", sa.BigInteger),  # end of the newest evaluated hour
    sa.Column("revision", sa.BigInteger, nullable=False),
)

incidents = sa.Table(
    "incidents",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("project_id", sa.Integer, sa.ForeignKey("projects.id"), nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),  # psi | silence | forecast | threshold
    sa.Column("model_id", sa.Integer, sa.ForeignKey("monitored_models.id")),
    sa.Column("watch_id", sa.Integer, sa.ForeignKey("watches.id")),
    sa.Column("subject", sa.String(200), nullable=False),  # what people call the model or the watch
    sa.Column("state", sa.String(16), nullable=False),  # open | acknowledged | resolved | closed
    sa.Column("severity", sa.String(16), nullable=False),  # warn | critical
    sa.Column("revision", sa.Integer, nullable=False),  # of the newest transition; compare-and-set
    # "<kind>:<model or watch id>" while open or acknowledged, NULL afterwards: two workers never make two incidents
    sa.Column("active_key", sa.String(64), unique=True),
    sa.Column("calm", sa.Integer, nullable=False, server_default="0"),  # evaluations in a row below the resolve level
    sa.Column("eased", sa.Integer, nullable=False, server_default="0"),  # the same clearly below critical
    sa.Column("opened_at", sa.Float, nullable=False),
    sa.Column("updated_at", sa.Float, nullable=False),
    sa.Column("acknowledged_at", sa.Float),
    sa.Column("resolved_at", sa.Float),
    sa.Column("closed_at", sa.Float),
    sa.Column("from_hour", sa.BigInteger, nullable=False),  # hours of the incident, left out of later baselines
    sa.Column("until_hour", sa.BigInteger, nullable=False),
    sa.Column("baseline_version", sa.Integer),
    sa.Column("frozen", sa.Text),  # JSON: what the baseline and phi were when it opened
    sa.Column("assessment", sa.Text, nullable=False),  # JSON of the newest evaluation
    sa.Index("incidents_of_project", "project_id", "id"),
    sqlite_autoincrement=True,
)

incident_transitions = sa.Table(  # the timeline
    "incident_transitions",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("incident_id", sa.Integer, sa.ForeignKey("incidents.id"), nullable=False),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("kind", sa.String(20), nullable=False),  # opened | escalated | downgraded | acknowledged | …
    sa.Column("state", sa.String(16), nullable=False),  # after it
    sa.Column("severity", sa.String(16), nullable=False),
    sa.Column("actor", sa.String(120), nullable=False),  # "sentinel", or who
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("assessment", sa.Text, nullable=False),  # JSON: the values it was decided on
    sa.Column("baseline_version", sa.Integer),
    sa.Column("hour", sa.BigInteger),  # evaluated hour, where an evaluation made it
    sa.Column("at", sa.Float, nullable=False),
    sa.UniqueConstraint("incident_id", "revision"),
    sqlite_autoincrement=True,
)

receivers = sa.Table(
    "receivers",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("project_id", sa.Integer, sa.ForeignKey("projects.id"), nullable=False),
    sa.Column("name", sa.String(64), nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),  # slack | webhook | alertmanager | apprise
    sa.Column("settings", sa.Text, nullable=False),  # JSON; holds secrets, never shown whole
    sa.Column("min_severity", sa.String(16), nullable=False),  # warn | critical
    sa.Column("enabled", sa.Boolean, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.UniqueConstraint("project_id", "name"),
    sqlite_autoincrement=True,
)

deliveries = sa.Table(  # the outbox: alerts owed, sent and dead
    "deliveries",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("incident_id", sa.Integer, sa.ForeignKey("incidents.id"), nullable=False),
    sa.Column("transition_id", sa.Integer, sa.ForeignKey("incident_transitions.id"), nullable=False),
    sa.Column("receiver_id", sa.Integer, sa.ForeignKey("receivers.id"), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),  # pending | delivered | dead
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("next_attempt_at", sa.Float),  # of pending ones; of a delivered one when to repeat it, NULL: never
    sa.Column("leased_until", sa.Float),  # a dispatcher works on it
    sa.Column("lease", sa.String(32)),
    sa.Column("last_error", sa.Text),
    sa.Column("delivered_at", sa.Float),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.UniqueConstraint("transition_id", "receiver_id"),
    sa.Index("deliveries_owed", "next_attempt_at"),
    sa.Index("deliveries_of_incident", "incident_id", "receiver_id"),
    sqlite_autoincrement=True,
)

# ---- who may do what -------------------------------------------------------------------------------------------------

api_keys = sa.Table(
    "api_keys",
    metadata,
    sa.Column("id", sa.String(16), primary_key=True),  # the public part of the key
    sa.Column("project_id", sa.Integer, sa.ForeignKey("projects.id")),  # NULL: every project, and it may only read
    sa.Column("name", sa.String(120), nullable=False),
    sa.Column("hash", sa.String(64), nullable=False),  # peppered HMAC-SHA256 of the secret part, hexadecimal
    sa.Column("pepper", sa.String(8), nullable=False),  # tells which pepper that was, so that a lost one is noticed
    sa.Column("scopes", sa.String(64), nullable=False),  # of ingest, read, admin; by commas
    sa.Column("events_per_second", sa.Float),  # NULL: the configured default
    sa.Column("created_by", sa.String(120), nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("expires_at", sa.Float),
    sa.Column("revoked_at", sa.Float),
    sa.Column("last_used_at", sa.Float),  # to the minute
)

users = sa.Table(
    "users",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String(120), nullable=False, unique=True),
    sa.Column("password_hash", sa.Text, nullable=False),  # argon2id
    sa.Column("role", sa.String(16), nullable=False),  # viewer | operator | admin
    sa.Column("project_id", sa.Integer, sa.ForeignKey("projects.id")),  # NULL: every project
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("disabled_at", sa.Float),
    sqlite_autoincrement=True,
)

sessions = sa.Table(
    "sessions",
    metadata,
    sa.Column("token_hash", sa.String(64), primary_key=True),  # SHA-256 of the cookie
    sa.Column("user_id", sa.Integer, sa.ForeignKey("users.id"), nullable=False),
    sa.Column("csrf", sa.String(64), nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("expires_at", sa.Float, nullable=False),
)

one_time_links = sa.Table(  # for the first admin
    "one_time_links",
    metadata,
    sa.Column("token_hash", sa.String(64), primary_key=True),
    sa.Column("expires_at", sa.Float, nullable=False),
)

login_failures = sa.Table(
    "login_failures",
    metadata,
    sa.Column("subject", sa.String(200), primary_key=True),  # "user:…" or "address:…"
    sa.Column("failures", sa.Integer, nullable=False),
    sa.Column("blocked_until", sa.Float, nullable=False),
    sa.Column("last_at", sa.Float, nullable=False),
)

audit_log = sa.Table(
    "audit_log",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("actor", sa.String(120), nullable=False),
    sa.Column("project_id", sa.Integer),  # of what was changed; NULL: the installation
    sa.Column("action", sa.String(64), nullable=False),
    sa.Column("target", sa.String(200), nullable=False),
    sa.Column("detail", sa.Text, nullable=False),  # JSON, without secrets
    sa.Index("audit_by_time", "at"),
    sqlite_autoincrement=True,
)

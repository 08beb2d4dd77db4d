"""The tables of the SQL store. Times are unix seconds (float where written by a clock, integer where on the grid).

Created and changed by the migrations beside this file only; a test proves that they agree.
"""

import sqlalchemy as sa

metadata = sa.MetaData()

segments = sa.Table(  # immutable Parquet files; one exists for readers once its row has committed
    "segments",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("dataset", sa.String(32), nullable=False),  # windows | forecasts | scores
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
    sa.Column("severity", sa.String(8)),  # none | low | high
    sa.Column("drift_mae", sa.Float),  # of the worst series, in the watch's drift_unit
    sa.Column("drift_low", sa.Integer, nullable=False, server_default="0"),  # series at low severity
    sa.Column("drift_high", sa.Integer, nullable=False, server_default="0"),
    sa.Column("drift_scored", sa.Integer, nullable=False, server_default="0"),  # series with a verdict
    sa.Column("unlearnt", sa.Integer, nullable=False, server_default="0"),  # live series no version has learnt
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
    sa.Column("spec_digest", sa.String(64), nullable=False),  # of class, grid and model_params
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

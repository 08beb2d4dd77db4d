"""Read Prometheus into the store: the newest steps of every watch at each tick, and any span when asked again."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa

from sentinel_core.config import WatchConfig
from sentinel_core.durations import parse_duration
from sentinel_core.errors import SentinelError, SourceError, TransientSourceError
from sentinel_core.pipeline.context import Context
from sentinel_core.pipeline.reports import ScrapeReport
from sentinel_core.prometheus.client import PrometheusClient
from sentinel_core.prometheus.scrape import Scrape, SourceFacts, newest_step, scrape, source_facts
from sentinel_core.series import Series
from sentinel_core.storage import watch_store, windows_store
from sentinel_core.windows import IntArray, Window

LATE_SECONDS = 300  # a sample this late still lands with the next ticks: the newest steps are read again
LATE_STEPS = (3, 40)  # at least and at most so many steps, whatever the granularity
MISSED_LIMIT_SECONDS = 7 * 86_400  # a tick after a longer pause starts here; older holes are a backfill's
CHUNK_SAMPLES = 4_000_000  # samples held at once while a long span is read (32 MB of values)
CONCURRENT_WATCHES = 4


@dataclass(frozen=True)
class _Reading:
    """What was read of one watch: its windows in order of time, or why it could not be read."""

    watch: WatchConfig
    watch_id: int
    facts: SourceFacts | None = None
    start: int = 0
    end: int = 0
    scrape: Scrape | None = None
    error: str | None = None
    transient: bool = False


def late_steps(step_seconds: int) -> int:
    """How many of the newest steps every tick reads again.

    >>> late_steps(15), late_steps(60), late_steps(3600)
    (20, 5, 3)
    """
    return min(LATE_STEPS[1], max(LATE_STEPS[0], -(-LATE_SECONDS // step_seconds)))


def scrape_windows(
    context: Context, start: int, end: int, *, mode: str = "tick", slugs: Sequence[str] | None = None
) -> ScrapeReport:
    """Read [start, end] (unix seconds, inclusive) of the watches, each on its own grid, and commit what came.

    mode "tick": each watch only from where it stands (less the late steps) to its newest settled step
    mode "backfill": the whole span, merged into what is there; nothing is ever removed

    A watch that fails is in the report's failures and stays where it stands; SourceError when every one fails.
    """
    ids = context.watch_ids()
    watches = context.chosen(slugs)
    with context.store.database.read() as conn:
        states = watch_store.states(conn)
    totals = _Totals()
    with context.client() as client:
        now = client.now()
        skew = now - context.clock()
        settled = now - parse_duration(context.config.settle_delay)

        def read(watch: WatchConfig) -> Iterator[_Reading]:
            state = states.get(watch.slug)
            step = watch.step_seconds
            stands = None if state is None else state.scraped_until
            first = max(start, end - MISSED_LIMIT_SECONDS) if mode == "tick" else start
            if mode == "tick" and stands is not None:
                first = max(first, stands + step) - late_steps(step) * step
            last = min(end, newest_step(settled, step, 0))
            known = None if state is None else SourceFacts(state.kind, state.scrape_interval) if state.kind else None
            yield from read_span(client, watch, ids[watch.slug], known, first, last, now)

        if mode == "tick":
            with ThreadPoolExecutor(CONCURRENT_WATCHES) as pool:
                _commit(context, [r for readings in pool.map(lambda w: list(read(w)), watches) for r in readings], totals)
        else:
            for watch in watches:
                for reading in read(watch):
                    _commit(context, [reading], totals)
    if watches and len(totals.failures) == len(watches):
        slug, error = next(iter(totals.failures.items()))
        kind = TransientSourceError if totals.transient else SourceError
        raise kind(f"no watch could be read; {slug}: {error}")
    return ScrapeReport(
        len(watches),
        len(totals.series),
        totals.samples,
        totals.gaps,
        totals.non_finite,
        totals.new_series,
        totals.vanished,
        skew,
        totals.failures,
    )


def read_history(context: Context, client: PrometheusClient, watch: WatchConfig, start: int, end: int) -> None:
    """Read what of [start, end] was never asked for; raises SourceError where Prometheus cannot answer."""
    watch_id = context.watch_ids()[watch.slug]
    with context.store.database.read() as conn:
        holes = watch_store.uncovered(conn, watch_id, start, end, watch.step_seconds)
        state = watch_store.states(conn).get(watch.slug)
    known = SourceFacts(state.kind, state.scrape_interval) if state is not None and state.kind else None
    totals = _Totals()
    for first, last in holes:
        for reading in read_span(client, watch, watch_id, known, first, last, client.now()):
            _commit(context, [reading], totals)
            if reading.error is not None:
                raise (TransientSourceError if reading.transient else SourceError)(reading.error)


def read_span(
    client: PrometheusClient,
    watch: WatchConfig,
    watch_id: int,
    facts: SourceFacts | None,
    start: int,
    end: int,
    now: float,
) -> Iterator[_Reading]:
    """Read a watch in pieces that fit in memory, oldest first; an error ends it and is the last piece."""
    step = watch.step_seconds
    try:
        # measured once an hour, and whenever it is unknown: one request a tick would be one too many
        if facts is None or facts.scrape_interval is None or start // 3600 != end // 3600:
            measured = source_facts(client, watch, min(now, end + step))
            facts = measured if facts is None else SourceFacts(facts.kind, measured.scrape_interval)
        first, steps = start, max(1, CHUNK_SAMPLES // watch.max_series)
        while first <= end:
            last = min(end, first + (steps - 1) * step)
            piece = scrape(client, watch, facts, first, last)
            yield _Reading(watch, watch_id, facts, first, last, piece)
            steps = max(1, CHUNK_SAMPLES // max(1, len(piece.series)))
            first = last + step
    except SentinelError as error:
        yield _Reading(watch, watch_id, error=str(error), transient=isinstance(error, TransientSourceError))


class _Totals:
    """Sums over the readings of one report."""

    def __init__(self) -> None:
        self.samples = self.gaps = self.non_finite = self.new_series = self.vanished = 0
        self.series: set[tuple[int, int]] = set()
        self.failures: dict[str, str] = {}
        self.transient = True


def _commit(context: Context, readings: Sequence[_Reading], totals: _Totals) -> None:
    """One segment per granularity, and one transaction for it, the coverage, the states and the series."""
    good = [reading for reading in readings if reading.scrape is not None]
    by_step: dict[int, list[Window]] = {}
    for reading in good:
        assert reading.scrape is not None
        if reading.scrape.window.values.size:
            by_step.setdefault(reading.watch.step_seconds, []).append(reading.scrape.window)
    pendings = [windows_store.write_windows(context.store, step, windows) for step, windows in by_step.items()]
    with context.store.database.write() as conn:
        context.store.segments.commit(conn, pendings)
        states = {state.watch_id: state for state in watch_store.states(conn).values()}
        rows = []
        for reading in readings:
            if reading.scrape is None:
                totals.failures[reading.watch.slug] = reading.error or ""
                totals.transient &= reading.transient
                watch_store.update_state(
                    conn, reading.watch_id, last_error=reading.error, last_error_at=context.clock()
                )
                continue
            rows.append(_settle(context, conn, reading, states.get(reading.watch_id), totals))
        watch_store.update_states(conn, rows)
        context.flush(conn)


def _settle(
    context: Context, conn: sa.Connection, reading: _Reading, state: watch_store.WatchState | None, totals: _Totals
) -> dict[str, object]:
    """Note coverage and series of one reading; returns the watch's new state."""
    watch, result, facts = reading.watch, reading.scrape, reading.facts
    assert result is not None
    assert facts is not None
    watch_store.add_coverage(conn, reading.watch_id, reading.start, reading.end, watch.step_seconds)
    stands = None if state is None else state.scraped_until
    row: dict[str, object] = {
        "watch_id": reading.watch_id,
        "kind": facts.kind,
        "scrape_interval": facts.scrape_interval,
        "scraped_until": reading.end if stands is None else max(stands, reading.end),
        "last_tick_at": None if state is None else state.last_tick_at,
        "last_error": None,
        "series_live": 0 if state is None else state.series_live,
    }
    samples = int(np.isfinite(result.window.values).sum())
    totals.samples += samples
    totals.gaps += result.gaps
    totals.non_finite += result.non_finite
    totals.series |= {(reading.watch_id, int(fp)) for fp in result.window.fingerprints}
    context.count("sentinel_scraped_samples_total", samples)
    context.count("sentinel_gaps_total", result.gaps)
    context.count("sentinel_non_finite_samples_total", result.non_finite)
    if stands is None or reading.end >= stands:
        row["last_tick_at"] = context.clock()
        row["series_live"] = _members(conn, reading, facts, totals)
    else:
        _add_unknown(conn, reading.watch_id, result.series, reading.start, totals, vanished_at=reading.end)
    return row


def _members(conn: sa.Connection, reading: _Reading, facts: SourceFacts, totals: _Totals) -> int:
    """Bring the watch's live series up to date with its newest reading; returns how many there are."""
    assert reading.scrape is not None
    window = reading.scrape.window
    finite = np.isfinite(window.values)
    quiet = max(LATE_SECONDS, 3 * window.step_seconds, 3 * (facts.scrape_interval or 0))
    recent = window.timestamps > reading.end - quiet
    present: IntArray = window.fingerprints[finite[:, recent].any(axis=1)] if recent.any() else window.fingerprints[:0]
    _, live = watch_store.live_series(conn, reading.watch_id)
    totals.new_series += _add_unknown(conn, reading.watch_id, reading.scrape.series, reading.end, totals)
    appeared = np.setdiff1d(present, live, assume_unique=True)
    if len(appeared):
        watch_store.mark_revived(conn, reading.watch_id, appeared)
    _, live = watch_store.live_series(conn, reading.watch_id)
    gone = np.setdiff1d(live, present, assume_unique=True)
    if len(gone):
        watch_store.mark_vanished(conn, reading.watch_id, gone, reading.end)
    totals.vanished += len(gone)
    return len(present)


def _add_unknown(
    conn: sa.Connection,
    watch_id: int,
    found: Sequence[Series],
    seen_at: int,
    totals: _Totals,
    vanished_at: int | None = None,
) -> int:
    known = watch_store.known_series(conn, watch_id)
    fresh = [one for one in found if one.fingerprint not in known]
    watch_store.add_series(conn, watch_id, fresh, seen_at, vanished_at)
    return len(fresh)

"""Read Prometheus into the store: the newest steps of every watch at each tick, and any span when asked again."""

from collections.abc import Callable, Iterator, Sequence
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
from sentinel_core.storage import watch_store, windows_store
from sentinel_core.windows import IntArray, Window

LATE_SECONDS = 300  # a sample this late still lands with the next ticks: the newest steps are read again
LATE_STEPS = (3, 40)  # at least and at most so many steps, whatever the granularity
MISSED_LIMIT_SECONDS = 7 * 86_400  # the most that a tick after a pause catches up; older holes are a backfill's
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
    if mode == "tick":
        context.sync_watches()
    else:
        context.watch_ids()  # registers watches that are new in the configuration
    with context.store.database.read() as conn:
        states = watch_store.states(conn)
    watches = [watch for watch in context.chosen(slugs) if watch.slug in states]  # one may be removed at any time
    totals = _Totals()
    with context.client() as client:
        try:
            now = context.source_time(client)
        except SourceError as away:  # no watch can be read, and each shall say why
            unread = [_Reading(watch, states[watch.slug].watch_id, error=str(away)) for watch in watches]
            _commit(context, unread, totals)
            raise
        skew = now - context.clock()
        settled = now - parse_duration(context.config.settle_delay)

        def read(client: PrometheusClient, watch: WatchConfig) -> Iterator[_Reading]:
            state = states[watch.slug]
            step = watch.step_seconds
            first = start
            if mode == "tick":
                fresh = start if state.scraped_until is None else state.scraped_until + step
                first = max(fresh, end - MISSED_LIMIT_SECONDS) - late_steps(step) * step
            last = min(end, newest_step(settled, step, 0))
            yield from read_span(client, watch, state.watch_id, _known(watch, state), first, last, now)

        if mode == "tick":
            readings = _concurrently(context, watches, read)
            _commit(context, readings, totals)
        else:
            for watch in watches:
                for reading in read(client, watch):
                    _commit(context, [reading], totals)
    if watches and len(totals.failures) == len(watches):
        slug, error = next(iter(totals.failures.items()))
        kind = TransientSourceError if totals.transient else SourceError
        raise kind(f"no watch could be read; {slug}: {error}")
    return ScrapeReport(
        len(watches),
        sum(map(len, totals.series.values())),
        totals.samples,
        totals.gaps,
        totals.non_finite,
        totals.new_series,
        totals.vanished,
        skew,
        totals.failures,
    )


def _concurrently(
    context: Context,
    watches: Sequence[WatchConfig],
    read: Callable[[PrometheusClient, WatchConfig], Iterator[_Reading]],
) -> list[_Reading]:
    """Read watches on a few threads, a client each."""

    def share(own: Sequence[WatchConfig]) -> list[_Reading]:
        with context.client() as client:
            return [reading for watch in own for reading in read(client, watch)]

    parts = [watches[k::CONCURRENT_WATCHES] for k in range(min(CONCURRENT_WATCHES, len(watches)))]
    with ThreadPoolExecutor(max(1, len(parts))) as pool:
        return [reading for readings in pool.map(share, parts) for reading in readings]


def read_history(context: Context, client: PrometheusClient, watch: WatchConfig, start: int, end: int) -> None:
    """Read what of [start, end] was never asked for; raises SourceError where Prometheus cannot answer."""
    watch_id = context.watch_ids()[watch.slug]
    with context.store.database.read() as conn:
        holes = watch_store.uncovered(conn, watch_id, start, end, watch.step_seconds)
        state = watch_store.states(conn).get(watch.slug)
    totals = _Totals()
    for first, last in holes:
        for reading in read_span(client, watch, watch_id, _known(watch, state), first, last, client.now()):
            _commit(context, [reading], totals)
            if reading.error is not None:
                raise (TransientSourceError if reading.transient else SourceError)(reading.error)


def read_newest(context: Context, watch: WatchConfig, steps: int) -> int:
    """Read the part of the newest `steps` that was never asked for; returns the newest step there is.

    Where Prometheus is down but history is stored, that history has to do.
    """
    try:
        with context.client() as client:
            now = context.source_time(client)
            end = newest_step(now, watch.step_seconds, parse_duration(context.config.settle_delay))
            read_history(context, client, watch, end - (steps - 1) * watch.step_seconds, end)
            return end
    except TransientSourceError:
        with context.store.database.read() as conn:
            state = watch_store.states(conn).get(watch.slug)
        if state is None or state.scraped_until is None:
            raise
        return int(state.scraped_until)


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
        if facts is None or start // 3600 != end // 3600:
            measured = source_facts(client, watch, min(now, end + step))
            # silence about a metric's type is no news: while Prometheus starts it knows of none
            counter = facts is not None and facts.kind == "counter" and watch.kind == "auto"
            facts = SourceFacts("counter", measured.scrape_interval) if counter else measured
        first, steps = start, max(1, CHUNK_SAMPLES // watch.max_series)
        while first <= end:
            last = min(end, first + (steps - 1) * step)
            piece = scrape(client, watch, facts, first, last)
            yield _Reading(watch, watch_id, facts, first, last, piece)
            steps = max(1, CHUNK_SAMPLES // max(1, len(piece.series)))
            first = last + step
    except SentinelError as error:
        yield _Reading(watch, watch_id, error=str(error), transient=isinstance(error, TransientSourceError))


def _known(watch: WatchConfig, state: watch_store.WatchState | None) -> SourceFacts | None:
    """What earlier ticks measured; None before the first, and where the configuration says otherwise by now."""
    if state is None or state.kind is None or state.scrape_interval is None:
        return None
    if watch.kind not in ("auto", state.kind) and watch.metric is not None:
        return None
    return SourceFacts("counter" if state.kind == "counter" else "gauge", state.scrape_interval)


class _Totals:
    """Sums over the readings of one report."""

    def __init__(self) -> None:
        self.samples = self.gaps = self.non_finite = self.new_series = self.vanished = 0
        self.series: dict[int, IntArray] = {}
        self.failures: dict[str, str] = {}
        self.transient = True

    def add(self, context: Context, reading: _Reading) -> None:
        assert reading.scrape is not None
        window = reading.scrape.window
        samples = int(np.isfinite(window.values).sum())
        self.samples += samples
        self.gaps += reading.scrape.gaps
        self.non_finite += reading.scrape.non_finite
        self.series[reading.watch_id] = np.union1d(
            self.series.get(reading.watch_id, window.fingerprints[:0]), window.fingerprints
        )
        context.count("sentinel_scraped_samples_total", samples)
        context.count("sentinel_gaps_total", reading.scrape.gaps)
        context.count("sentinel_non_finite_samples_total", reading.scrape.non_finite)


def _commit(context: Context, readings: Sequence[_Reading], totals: _Totals) -> None:
    """One segment per granularity, and one transaction for it, the coverage, the states and the series."""
    by_step: dict[int, list[Window]] = {}
    for reading in readings:
        if reading.scrape is not None and reading.scrape.window.values.size:
            by_step.setdefault(reading.watch.step_seconds, []).append(reading.scrape.window)
    pendings = [windows_store.write_windows(context.store, step, windows) for step, windows in by_step.items()]
    now = context.clock()
    with context.store.database.write() as conn:
        context.store.segments.commit(conn, pendings)
        states = {state.watch_id: state for state in watch_store.states(conn).values()}
        # one query for all: a statement a watch would make a tick's cost grow with the number of watches
        owner, fingerprints = watch_store.live_series(conn)
        rows: list[dict[str, object]] = []
        pieces: dict[int, list[_Reading]] = {}
        for reading in readings:
            if reading.scrape is None:
                totals.failures[reading.watch.slug] = reading.error or ""
                totals.transient &= reading.transient
                continue
            totals.add(context, reading)
            if reading.watch_id in states:  # otherwise it was removed while it was read; its samples stay
                pieces.setdefault(reading.watch_id, []).append(reading)
        for watch_id, read in pieces.items():
            span = slice(*np.searchsorted(owner, [watch_id, watch_id + 1]))
            rows.append(_settle(conn, read, states[watch_id], fingerprints[span], totals, now))
        for reading in readings:
            kind = None if reading.watch_id not in states else states[reading.watch_id].kind
            if reading.facts is not None and kind not in (None, reading.facts.kind):
                watch_store.drop_coverage(conn, reading.watch_id)  # gauge or counter: its past is to be read anew
        watch_store.add_coverages(
            conn, [(r.watch_id, r.start, r.end, r.watch.step_seconds) for r in readings if r.scrape is not None]
        )
        watch_store.update_states(conn, rows)
        # of several pieces the last one counts: an error ends a reading
        watch_store.note_errors(conn, "reading", {reading.watch_id: reading.error for reading in readings}, now)
        context.flush(conn)


def _settle(
    conn: sa.Connection,
    pieces: Sequence[_Reading],
    state: watch_store.WatchState,
    live: IntArray,
    totals: _Totals,
    now: float,
) -> dict[str, object]:
    """Bring a watch's series up to date with what was read of it, in order of time; returns its new state.

    Which series live is judged once, at the end of the last piece: an earlier one may end in a hole.
    """
    newest = pieces[-1]
    assert newest.facts is not None
    row: dict[str, object] = {
        "watch_id": newest.watch_id,
        "kind": newest.facts.kind,
        "scrape_interval": newest.facts.scrape_interval,
    }
    windows = [piece.scrape.window for piece in pieces if piece.scrape is not None]
    if state.scraped_until is not None and newest.end < state.scraped_until:
        # an older span: it may name series that are long gone, and says nothing about those that live
        for piece, window in zip(pieces, windows, strict=True):
            _add_unknown(conn, piece, live, vanished_at=piece.end)
            watch_store.mark_seen_earlier(conn, piece.watch_id, _first_samples(window))
        return row
    step = newest.watch.step_seconds
    quiet = newest.end - max(LATE_SECONDS, 3 * step, 3 * newest.facts.scrape_interval)
    seen, present = live[:0], live[:0]
    for piece, window in zip(pieces, windows, strict=True):
        recent = np.isfinite(window.values[:, window.timestamps > quiet]).any(axis=1)
        seen = np.union1d(seen, window.fingerprints)
        present = np.union1d(present, window.fingerprints[recent])
        totals.new_series += _add_unknown(conn, piece, live)
        if state.scraped_until is not None and piece.start < state.scraped_until - late_steps(step) * step:
            # history up to now, while a tick has registered its series by what it saw of them
            watch_store.mark_seen_earlier(conn, piece.watch_id, _first_samples(window))
    watch_store.mark_revived(conn, newest.watch_id, np.setdiff1d(present, live))
    # one seen for the first time in this very reading may be gone again by its end
    gone = np.setdiff1d(np.union1d(live, seen), present)
    watch_store.mark_vanished(conn, newest.watch_id, gone, newest.end)
    totals.vanished += len(gone)
    row |= {"scraped_until": newest.end, "last_tick_at": now, "series_live": len(present)}
    if state.buffer_fill < 1.0:
        first = watch_store.first_sample(conn, newest.watch_id)
        span = 0 if first is None else newest.end - first + step
        row["buffer_fill"] = min(1.0, span / (newest.watch.lookback_steps * step))
    return row


def _first_samples(window: Window) -> dict[int, int]:
    """Time of the first sample of each series that has one."""
    finite = np.isfinite(window.values)
    some = finite.any(axis=1)
    times = window.timestamps[np.argmax(finite[some], axis=1)]
    return dict(zip(window.fingerprints[some].tolist(), times.tolist(), strict=True))


def _add_unknown(conn: sa.Connection, reading: _Reading, live: IntArray, vanished_at: int | None = None) -> int:
    """Register series that the watch never had; returns how many."""
    assert reading.scrape is not None
    window = reading.scrape.window
    candidates = ~np.isin(window.fingerprints, live)
    if not candidates.any():
        return 0
    known = watch_store.known_series(conn, reading.watch_id)
    series = reading.scrape.series
    fresh = [row for row in np.flatnonzero(candidates).tolist() if int(window.fingerprints[row]) not in known]
    if fresh:
        first = int(window.timestamps[np.argmax(np.isfinite(window.values[fresh]).any(axis=0))])
        watch_store.add_series(conn, reading.watch_id, [series[row] for row in fresh], first, vanished_at)
    return len(fresh)

"""When to tick and what to train: reads states, asks the pure rules, and leases what they decide."""

import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import sqlalchemy as sa

from sentinel_core import actions, registry
from sentinel_core.actions import DECIDED, Decision, Tried, WatchFacts
from sentinel_core.config import WatchConfig
from sentinel_core.durations import parse_duration
from sentinel_core.errors import StoreError
from sentinel_core.pipeline.context import SKEW, Context
from sentinel_core.pipeline.reading import MISSED_LIMIT_SECONDS
from sentinel_core.pipeline.reports import ActionRequest, TickPlan
from sentinel_core.storage import schema, watch_store

LONGEST_REST_SECONDS = 300.0  # a watch that cannot be read is tried again so soon at the latest
QUEUE_SECONDS = 600.0  # how long a decision may wait for its run before it is made anew
LEASE_SECONDS = 120.0  # a training that shows no sign of life for so long is dead
HEARTBEAT_SECONDS = 30.0
SKEW_IGNORED_SECONDS = 5.0  # below that it is the time of a request, and a schedule of whole minutes must not miss one
REPEAT_COOLDOWNS = 32  # actions on drift within so many cooldowns lengthen the next rest


def due(context: Context, now: float | None = None) -> TickPlan | None:
    """Which watches a tick has to see to, and the span it has to cover; None when everything is done.

    Due is a watch with a settled step that nobody has read, or that was read and not forecast and scored since: a tick
    was killed in between, or a training read it. Steps settle by Prometheus' clock: `now` is ours, corrected by how far
    the newest reading found the two apart.

    A watch that was never read is due at its newest step only: its history is read when it is trained first. One that
    could not be read rests for half a step, five minutes at most.
    """
    ours = now = context.clock() if now is None else now
    settle = parse_duration(context.config.settle_delay)
    with context.store.database.read() as conn:
        states = watch_store.states(conn)
        serving = registry.active_versions(conn)
        skew = watch_store.counters(conn).get((SKEW, ()), 0.0)
    if abs(skew) > SKEW_IGNORED_SECONDS:
        now += skew
    slugs: list[str] = []
    starts: list[int] = []
    failing: list[int] = []
    ends: list[int] = []
    for watch in context.config.watches:
        step = watch.step_seconds
        newest = int((now - settle) // step) * step
        state = states.get(watch.slug)
        stands = None if state is None else state.scraped_until
        read = stands is not None and stands >= newest
        if read and (state is None or state.watch_id not in serving or not _unfinished(state)):
            continue
        if state is not None and ours - _unreadable_at(state) < min(LONGEST_REST_SECONDS, step / 2):
            continue
        slugs.append(watch.slug)
        ends.append(newest)
        # a watch that keeps failing is tried with every tick, but must not stretch every tick's span over days
        behind = failing if state is not None and state.last_error is not None else starts
        behind.append(newest if stands is None or read else max(stands + step, newest - MISSED_LIMIT_SECONDS))
    return TickPlan(tuple(slugs), min(starts or failing), max(ends)) if slugs else None


def _unreadable_at(state: watch_store.WatchState) -> float:
    """When reading a watch failed, if that is the newest there is to say about it."""
    failed = state.last_error is not None and state.last_error.startswith("reading: ")
    return state.last_error_at if failed and state.last_error_at is not None else float("-inf")


def _unfinished(state: watch_store.WatchState) -> bool:
    """Whether a serving watch was read further than it was forecast or scored."""
    if state.scraped_until is None or not state.series_live:
        return False
    if state.forecast_origin is None or state.forecast_origin < state.scraped_until:
        return True
    # before the first score nothing was forecast that could be scored; where something is wrong the next step will do
    return state.scored_until is not None and state.scored_until < state.scraped_until and state.last_error is None


def decide_actions(context: Context) -> list[ActionRequest]:
    """Decide for every watch, lease what is decided, and group it into one run for each kind and cause.

    The lease is a row of `actions`: it keeps the next evaluation from asking again while the run waits or works. A
    decision whose lease lapsed is made anew; the run that comes to it first answers it.
    """
    now = context.clock()
    ids = context.watch_ids()
    with context.store.database.read() as conn:
        states = watch_store.states(conn)
        serving = registry.serving(conn)
        past = _recent_actions(conn, now)
    decisions: list[tuple[WatchConfig, Decision]] = []
    for watch in context.config.watches:
        decision = actions.decide(_facts(watch, ids[watch.slug], states, serving, past, now), now)
        if decision is not None:
            decisions.append((watch, decision))
    if not decisions:
        return []
    requests: list[ActionRequest] = []
    with context.store.database.write() as conn:
        # decided on a snapshot: a watch that somebody leased in between is left to them
        busy = set(conn.scalars(sa.select(schema.actions.c.watch_id).where(_open(now))))
        decisions = [(watch, decision) for watch, decision in decisions if ids[watch.slug] not in busy]
        _close(conn, [ids[watch.slug] for watch, _ in decisions], now)
        grouped: dict[tuple[str, str], list[str]] = {}
        last = 0
        for watch, decision in decisions:
            inserted = conn.execute(
                sa.insert(schema.actions).values(
                    watch_id=ids[watch.slug],
                    kind=decision.kind,
                    cause=decision.cause,
                    decided_at=now,
                    lease_until=now + QUEUE_SECONDS,
                    detail=decision.reason,
                )
            )
            assert inserted.inserted_primary_key is not None
            last = inserted.inserted_primary_key[0]
            grouped.setdefault((decision.kind, decision.cause), []).append(watch.slug)
        for (kind, cause), slugs in grouped.items():
            requests.append(ActionRequest(kind, cause, tuple(slugs), f"{kind}:{cause}:{int(now)}:{last}"))
    return requests


@dataclass(frozen=True)
class Lease:
    """The right to train one watch, and why it is trained."""

    action_id: int
    reason: str
    cause: str  # first | configuration | drift | new_series | schedule | person


@contextmanager
def leased(
    context: Context, watch_id: int, kind: str, reason: str, cause: str, run_id: str | None
) -> Iterator[Lease | None]:
    """Hold a watch's training lease while the body runs; None when another run holds it.

    Who comes with a decision (`cause` is one of actions.DECIDED) gets its lease, and its reason, only while that
    decision waits; who was told to train by a cron or a person comes before one, and answers it too.

    The lease is renewed from a thread, so that it outlives a long fit and lapses soon after a process is killed. What
    was decided together is one run's work: the decisions it has not come to yet are kept waiting for it.
    """
    lease = _claim(context, watch_id, kind, reason, cause, run_id)
    if lease is None:
        yield None
        return
    stop = threading.Event()

    def renew() -> None:
        while not stop.wait(HEARTBEAT_SECONDS):
            with suppress(StoreError), context.store.database.write() as conn:
                _renew(conn, lease.action_id, context.clock())

    thread = threading.Thread(target=renew, daemon=True, name=f"lease-{lease.action_id}")
    thread.start()
    try:
        yield lease
    finally:
        stop.set()
        thread.join()


def finish(conn: sa.Connection, lease: Lease, outcome: str, detail: str, now: float) -> None:
    """Note how an action ended, in the transaction that made it so; the watch is free again."""
    conn.execute(
        sa.update(schema.actions)
        .where(schema.actions.c.id == lease.action_id)
        .values(finished_at=now, outcome=outcome, detail=detail)
    )


def _claim(context: Context, watch_id: int, kind: str, reason: str, cause: str, run_id: str | None) -> Lease | None:
    now = context.clock()
    table = schema.actions
    with context.store.database.write() as conn:
        standing = conn.execute(
            sa.select(table).where(table.c.watch_id == watch_id, table.c.finished_at.is_(None))
        ).first()
        if standing is not None and standing.run_id is not None and standing.lease_until > now:
            return None
        if cause in DECIDED:
            if standing is None or (standing.kind, standing.cause) != (kind, cause):
                return None
            conn.execute(sa.update(table).where(table.c.id == standing.id).values(run_id=run_id or "local"))
            _renew(conn, standing.id, now)
            return Lease(standing.id, standing.detail or reason, cause)
        _close(conn, [watch_id], now)
        inserted = conn.execute(
            sa.insert(table).values(
                watch_id=watch_id,
                kind=kind,
                cause=cause,
                decided_at=now,
                lease_until=now + LEASE_SECONDS,
                run_id=run_id or "local",
                detail=reason,
            )
        )
        assert inserted.inserted_primary_key is not None
        return Lease(inserted.inserted_primary_key[0], reason, cause)


def _close(conn: sa.Connection, watch_ids: Collection[int], now: float) -> None:
    """End what is unfinished of these watches, so that there is never more than one such action of a watch.

    What somebody held and let lapse died, which counts as a failure; what waited is answered by what comes now.
    """
    table = schema.actions
    died = sa.case((table.c.run_id.is_(None), "superseded"), else_="died")
    unfinished = sa.and_(table.c.watch_id.in_(watch_ids), table.c.finished_at.is_(None))
    conn.execute(sa.update(table).where(unfinished).values(finished_at=now, outcome=died))


def _renew(conn: sa.Connection, action_id: int, now: float) -> None:
    """Renew a held lease, and those of the decisions made with it that nobody has taken up yet."""
    table = schema.actions
    own = sa.select(table.c.kind, table.c.cause, table.c.decided_at).where(table.c.id == action_id)
    together = sa.tuple_(table.c.kind, table.c.cause, table.c.decided_at).in_(own)
    waits = sa.and_(together, table.c.run_id.is_(None), table.c.finished_at.is_(None))
    conn.execute(sa.update(table).where(waits).values(lease_until=now + QUEUE_SECONDS))
    conn.execute(sa.update(table).where(table.c.id == action_id).values(lease_until=now + LEASE_SECONDS))


def _open(now: float) -> sa.ColumnElement[bool]:
    return sa.and_(schema.actions.c.finished_at.is_(None), schema.actions.c.lease_until > now)


@dataclass(frozen=True)
class _Past:
    cause: str
    decided_at: float
    lease_until: float
    finished_at: float | None
    outcome: str | None


def _recent_actions(conn: sa.Connection, now: float) -> dict[int, list[_Past]]:
    """Each watch's actions of the last day, newest first."""
    table = schema.actions
    rows = conn.execute(
        sa.select(
            table.c.watch_id,
            table.c.cause,
            table.c.decided_at,
            table.c.lease_until,
            table.c.finished_at,
            table.c.outcome,
        )
        .where(table.c.decided_at > now - 86_400)
        .order_by(table.c.id.desc())
    )
    past: dict[int, list[_Past]] = {}
    for watch_id, *fields in rows:
        past.setdefault(watch_id, []).append(_Past(*fields))
    return past


def _facts(
    watch: WatchConfig,
    watch_id: int,
    states: dict[str, watch_store.WatchState],
    serving: dict[int, tuple[registry.Active, registry.Version]],
    past: dict[int, list[_Past]],
    now: float,
) -> WatchFacts:
    state, active, mine = states.get(watch.slug), serving.get(watch_id), past.get(watch_id, [])
    cooldown = float(parse_duration(watch.drift_cooldown))
    return WatchFacts(
        slug=watch.slug,
        has_version=active is not None,
        silent=state is not None and state.scraped_until is not None and not state.series_live,
        spec_changed=active is not None and active[1].spec_digest != watch.digest_until(active[1].span_end),
        severity=(state.severity if state is not None else None) or "none",
        unlearnt=state.unlearnt if state is not None else 0,
        cooldown_seconds=cooldown,
        leased=any(p.finished_at is None and p.lease_until > now for p in mine),
        tried=_tried(mine, now - REPEAT_COOLDOWNS * cooldown),
    )


def _tried(past: Sequence[_Past], lately: float) -> dict[str, Tried]:
    """What a watch's decisions came to, by cause. A training by cron or by hand that helped ends their failures."""
    found: dict[str, Tried] = {}
    failing = True
    for action in past:  # newest first
        if action.finished_at is None or action.outcome == "superseded":
            continue
        failing = failing and action.outcome != "promoted"
        if action.cause not in DECIDED:
            continue
        before = found.get(action.cause)
        found[action.cause] = Tried(
            action.finished_at if before is None else max(before.last_finished, action.finished_at),
            failing + (0 if before is None else before.failures),
            0 if before is None else before.repeats + (action.decided_at > lately),
        )
    return found

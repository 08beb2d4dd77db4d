"""When to tick and what to train: reads states, asks the pure rules, and leases what they decide."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import sqlalchemy as sa

from sentinel_core import actions, registry
from sentinel_core.actions import Decision, WatchFacts
from sentinel_core.config import WatchConfig
from sentinel_core.durations import parse_duration
from sentinel_core.errors import StoreError
from sentinel_core.pipeline.context import SKEW, Context
from sentinel_core.pipeline.reading import MISSED_LIMIT_SECONDS
from sentinel_core.pipeline.reports import ActionRequest, TickPlan
from sentinel_core.storage import schema, watch_store

QUEUE_SECONDS = 600.0  # how long a decision may wait for its run before it is made anew
LEASE_SECONDS = 120.0  # a training that shows no sign of life for so long is dead
HEARTBEAT_SECONDS = 30.0
SKEW_IGNORED_SECONDS = 5.0  # below that it is the time of a request, and a schedule of whole minutes must not miss one
UNHELPFUL_COOLDOWNS = 32  # drift actions within so many cooldowns lengthen the next rest


def due(context: Context, now: float | None = None) -> TickPlan | None:
    """Which watches have a settled step that nobody has read, and the span a tick has to cover; None when all is read.

    Steps settle by Prometheus' clock: `now` is ours, corrected by how far the newest reading found the two apart.

    A watch that was never read is due at its newest step only: its history is read when it is trained first.
    """
    now = context.clock() if now is None else now
    settle = parse_duration(context.config.settle_delay)
    with context.store.database.read() as conn:
        states = watch_store.states(conn)
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
        if stands is not None and stands >= newest:
            continue
        slugs.append(watch.slug)
        ends.append(newest)
        # a watch that keeps failing is tried with every tick, but must not stretch every tick's span over days
        behind = failing if state is not None and state.last_error is not None else starts
        behind.append(newest if stands is None else max(stands + step, newest - MISSED_LIMIT_SECONDS))
    return TickPlan(tuple(slugs), min(starts or failing), max(ends)) if slugs else None


def decide_actions(context: Context) -> list[ActionRequest]:
    """Decide for every watch, lease what is decided, and group it into one run for each kind.

    The lease is a row of `actions`: it keeps the next evaluation from asking again while the run waits or works.
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
        grouped: dict[str, list[str]] = {}
        last = 0
        for watch, decision in decisions:
            if ids[watch.slug] in busy:
                continue
            inserted = conn.execute(
                sa.insert(schema.actions).values(
                    watch_id=ids[watch.slug],
                    kind=decision.kind,
                    decided_at=now,
                    lease_until=now + QUEUE_SECONDS,
                    detail=decision.reason,
                )
            )
            assert inserted.inserted_primary_key is not None
            last = inserted.inserted_primary_key[0]
            grouped.setdefault(decision.kind, []).append(watch.slug)
        for kind, slugs in grouped.items():
            requests.append(ActionRequest(kind, tuple(slugs), f"{kind}:{int(now)}:{last}"))
    return requests


@dataclass(frozen=True)
class Lease:
    """The right to train one watch, and why it is trained."""

    action_id: int
    reason: str


@contextmanager
def leased(context: Context, watch_id: int, kind: str, reason: str, run_id: str | None) -> Iterator[Lease | None]:
    """Hold a watch's training lease while the body runs; None when another run holds it.

    A waiting decision of the same kind is taken over with its reason. The lease is renewed from a thread, so that it
    outlives a long fit and lapses soon after a process is killed.
    """
    lease = _claim(context, watch_id, kind, reason, run_id)
    if lease is None:
        yield None
        return
    stop = threading.Event()

    def renew() -> None:
        while not stop.wait(HEARTBEAT_SECONDS):
            with suppress(StoreError), context.store.database.write() as conn:
                _touch(conn, lease.action_id, context.clock() + LEASE_SECONDS)

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


def _claim(context: Context, watch_id: int, kind: str, reason: str, run_id: str | None) -> Lease | None:
    now = context.clock()
    until = now + LEASE_SECONDS
    table = schema.actions
    with context.store.database.write() as conn:
        held = conn.execute(sa.select(table).where(table.c.watch_id == watch_id, _open(now))).first()
        if held is not None and held.run_id is not None:
            return None
        if held is not None and held.kind == kind:
            conn.execute(
                sa.update(table).where(table.c.id == held.id).values(run_id=run_id or "local", lease_until=until)
            )
            return Lease(held.id, held.detail or reason)
        if held is not None:  # a decision still waiting: what is asked for now comes first and answers it too
            conn.execute(
                sa.update(table)
                .where(table.c.id == held.id)
                .values(finished_at=now, outcome="superseded", detail=f"superseded by {kind}")
            )
        inserted = conn.execute(
            sa.insert(table).values(
                watch_id=watch_id, kind=kind, decided_at=now, lease_until=until, run_id=run_id or "local", detail=reason
            )
        )
        assert inserted.inserted_primary_key is not None
        return Lease(inserted.inserted_primary_key[0], reason)


def _touch(conn: sa.Connection, action_id: int, until: float) -> None:
    conn.execute(sa.update(schema.actions).where(schema.actions.c.id == action_id).values(lease_until=until))


def _open(now: float) -> sa.ColumnElement[bool]:
    return sa.and_(schema.actions.c.finished_at.is_(None), schema.actions.c.lease_until > now)


@dataclass(frozen=True)
class _Past:
    kind: str
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
            table.c.kind,
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
    finished: Sequence[_Past] = [p for p in mine if p.finished_at is not None and p.outcome != "superseded"]
    cooldown = float(parse_duration(watch.drift_cooldown))
    failures = 0
    for action in finished:
        if action.outcome == "promoted":
            break
        failures += 1
    drift_actions = [
        p for p in finished if p.kind != actions.COLD_START and p.decided_at > now - UNHELPFUL_COOLDOWNS * cooldown
    ]
    return WatchFacts(
        slug=watch.slug,
        has_version=active is not None,
        silent=state is not None and state.scraped_until is not None and not state.series_live,
        spec_changed=active is not None and active[1].spec_digest != watch.spec_digest,
        severity=(state.severity if state is not None else None) or "none",
        unlearnt=state.unlearnt if state is not None else 0,
        cooldown_seconds=cooldown,
        leased=any(p.finished_at is None and p.lease_until > now for p in mine),
        last_finished=max((p.finished_at for p in finished if p.finished_at is not None), default=None),
        failures=failures,
        unhelpful=max(0, len(drift_actions) - 1),
    )

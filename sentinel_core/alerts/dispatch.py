"""Send what the outbox owes: all receivers at once, each incident's alerts in order, whatever fails tried again.

One loop takes turns: write down what became of attempts and lease what is due, in ONE transaction; then send, and wait
for the first answers. So a receiver that is slow or broken holds nobody up but itself, and a dispatcher that dies
between an answer and its transaction has sent some alerts that will be sent again, and has lost none.
"""

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import msgspec

from sentinel_core.alerts import message, outbox, receivers
from sentinel_core.alerts.addresses import Addresses
from sentinel_core.alerts.message import Alert
from sentinel_core.alerts.outbox import Claimed, Outcome
from sentinel_core.alerts.posting import Post
from sentinel_core.config import SentinelConfig
from sentinel_core.errors import PermanentDeliveryError, SentinelError, TransientDeliveryError, explain
from sentinel_core.incidents.lifecycle import ACTIVE
from sentinel_core.storage.database import Database

AT_ONCE = 16  # alerts under way to one receiver
TRANSIENT_ATTEMPTS = 100  # two days: a weekend without a mail server
PERMANENT_ATTEMPTS = 3  # a few minutes: somebody may be repairing the address just now
TRANSIENT_BASE_SECONDS, PERMANENT_BASE_SECONDS = 2.0, 60.0
LONGEST_PAUSE_SECONDS = 3_600.0
LOOK_SECONDS = 1.0  # how often a dispatcher that waits for a slow receiver looks for new alerts of others

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DeliveryReport:
    """What one run of the dispatcher did."""

    delivered: int = 0
    repeated: int = 0  # Alertmanager forgets what is not told again
    failed: int = 0  # attempts that will be made again
    dead: int = 0
    next_at: float | None = None  # when there is something to send again


def deliver(
    database: Database,
    config: SentinelConfig,
    *,
    clock: Callable[[], float] = time.time,
    patience_seconds: float = 10.0,
) -> DeliveryReport:
    """Send everything that is due, and what falls due within `patience_seconds`.

    Several may run at once, in any processes. Raises StoreError where the store refuses; what was leased then is sent
    by the next one.
    """
    return asyncio.run(_Dispatcher(database, config, clock).run(patience_seconds))


def pause(attempts: int, error: SentinelError, draw: float) -> float:
    """Seconds until the next attempt: exponential with full jitter, and no sooner than the receiver asks.

    attempts: made so far, this one included
    draw:     uniform in [0, 1)
    """
    permanent = isinstance(error, PermanentDeliveryError)
    base = PERMANENT_BASE_SECONDS if permanent else TRANSIENT_BASE_SECONDS
    backoff = draw * min(LONGEST_PAUSE_SECONDS, base * 2.0 ** min(attempts - 1, 32))
    asked = error.retry_after if isinstance(error, TransientDeliveryError) else 0.0
    return max(backoff, asked)


class _Dispatcher:
    def __init__(self, database: Database, config: SentinelConfig, clock: Callable[[], float]) -> None:
        self._database, self._config, self._clock = database, config, clock
        self._lease = outbox.new_lease()
        self._under_way: dict[asyncio.Task[Outcome], Claimed] = {}
        self._report = DeliveryReport()

    async def run(self, patience_seconds: float) -> DeliveryReport:
        async with Post(Addresses(self._config.alert_networks), self._clock) as post:
            while True:
                finished = [task for task in self._under_way if task.done()]
                outcomes = [task.result() for task in finished]
                for task in finished:
                    del self._under_way[task]
                claimed, next_at = await asyncio.to_thread(self._turn, outcomes)
                for one in claimed:
                    self._under_way[asyncio.create_task(self._attempt(one, post))] = one
                if self._under_way:
                    await asyncio.wait(self._under_way, timeout=LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                elif next_at is None or next_at > self._clock() + patience_seconds:
                    return replace(self._report, next_at=next_at)
                else:
                    await asyncio.sleep(min(max(next_at - self._clock(), 0.0), LOOK_SECONDS))

    def _turn(self, outcomes: Sequence[Outcome]) -> tuple[list[Claimed], float | None]:
        """Settle and claim; what is left to do is only asked for when there is nothing under way."""
        busy = Counter(one.receiver_id for one in self._under_way.values())
        with self._database.write() as conn:
            outbox.settle(conn, self._lease, outcomes)
            claimed = outbox.claim(conn, self._lease, self._clock(), AT_ONCE, busy)
            next_at = None if claimed or self._under_way else outbox.next_due(conn)
        return claimed, next_at

    async def _attempt(self, one: Claimed, post: Post) -> Outcome:
        """Send one alert; every failure becomes an outcome."""
        try:
            receiver = receivers.build(one.receiver_kind, msgspec.json.decode(one.settings))
            await receiver.send(_alert(one, self._config, self._clock()), post)
        except SentinelError as error:
            return self._failed(one, error)
        except Exception as error:  # a receiver's bug is its own: it holds up nobody, and is shown
            return self._failed(one, PermanentDeliveryError(explain(error)))
        now = self._clock()
        again = now + receiver.REPEAT_SECONDS if receiver.REPEAT_SECONDS and one.state_now in ACTIVE else None
        if one.state == "delivered":
            self._count(repeated=1)
            return Outcome(one.id, "delivered", one.attempts, again, None, one.delivered_at)
        self._count(delivered=1)
        return Outcome(one.id, "delivered", one.attempts + 1, again, None, now)

    def _failed(self, one: Claimed, error: SentinelError) -> Outcome:
        attempts = one.attempts + 1
        again = self._clock() + pause(attempts, error, random.random())
        rests = again if isinstance(error, TransientDeliveryError) and error.retry_after else None
        if one.state == "delivered":  # a repetition that fails is owed for as long as the incident lasts
            self._count(failed=1)
            return Outcome(one.id, "delivered", one.attempts, again, str(error), one.delivered_at, rests)
        last = PERMANENT_ATTEMPTS if isinstance(error, PermanentDeliveryError) else TRANSIENT_ATTEMPTS
        if attempts < last:
            self._count(failed=1)
            return Outcome(one.id, "pending", attempts, again, str(error), None, rests)
        self._count(dead=1)
        log.warning(
            "the alert of incident %d to receiver %s is given up after %d attempts: %s; it can be sent again by hand",
            one.incident_id,
            one.receiver,
            attempts,
            error,
        )
        return Outcome(one.id, "dead", attempts, None, str(error), None)

    def _count(self, **amounts: int) -> None:
        totals = {name: getattr(self._report, name) + amount for name, amount in amounts.items()}
        self._report = replace(self._report, **totals)


def _alert(one: Claimed, config: SentinelConfig, now: float) -> Alert:
    return Alert(
        id=f"dlv_{one.id}_{int(one.created_at * 1_000_000):x}",  # the time keeps two installations apart
        incident_id=one.incident_id,
        project=one.project,
        kind=one.kind,
        subject=message.clean(one.subject),
        step=one.step,
        state=one.step_state,
        severity=one.severity,
        actor=message.clean(one.actor),
        reason=message.clean(one.reason, message.MAX_REASON),
        at=one.at,
        opened_at=one.opened_at,
        active=one.state_now in ACTIVE,
        severity_now=one.severity_now,
        sent_at=now,
        link=f"{config.public_url}/incidents/{one.incident_id}",
        headline=message.headline(one.kind, one.subject, one.assessment),
        seriousness=message.seriousness(one.kind, one.severity, one.assessment),
        why=message.why(one.kind, one.reason, one.assessment),
        next=message.what_next(one.kind, one.step_state, hour_seconds=config.hour_seconds),
        assessment=msgspec.json.decode(one.assessment),
    )

"""Alerts through faults: 5,000 to a receiver that fails and forgets to answer, while the dispatcher is killed.

The receiver answers 5 % of what arrives with 500 and hangs up on 2 % after it has taken them; the dispatcher is another
process, ended by SIGKILL every few seconds and started again. Afterwards every alert must have arrived, in the order of
its incident. What arrived twice bears the same webhook-id, by which a receiver tells; their number is printed.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import sqlalchemy as sa

from sentinel_core.alerts import outbox, receivers
from sentinel_core.alerts.dispatch import deliver
from sentinel_core.config import SentinelConfig
from sentinel_core.incidents import lifecycle
from sentinel_core.incidents.findings import Silence
from sentinel_core.incidents.lifecycle import Condition, Subject
from sentinel_core.storage import schema
from sentinel_core.storage.database import Database

ALERTS, STEPS = 5_000, ("warning", "critical", "ok")  # each incident opens, escalates and is resolved by hand
FAILING, FORGETTING = 0.05, 0.02
KILLED_AFTER = (2.0, 5.0)  # seconds of a dispatcher's life, at random
LONGEST_SECONDS = 240.0
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
HOUR = 3_600


class Inbox:
    """The receiver: what it took, in the order in which it did."""

    def __init__(self, failing: float, forgetting: float) -> None:
        self.taken: list[tuple[str, int, str]] = []  # webhook-id, incident, type
        self.posts = 0
        draw, owner = random.Random(0), self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(length := int(self.headers["content-length"]))
                if len(body) < length:  # its dispatcher was killed in the middle
                    return
                owner.posts += 1
                fate = draw.random()
                if fate < failing:
                    self._answer(500)
                    return
                message = msgspec.json.decode(body)
                owner.taken.append((self.headers["webhook-id"], message["data"]["incident"]["id"], message["type"]))
                if fate < failing + forgetting:
                    self.close_connection = True
                    return
                self._answer(204)

            def _answer(self, status: int) -> None:
                self.send_response_only(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Nothing."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """Nothing: a dispatcher that is killed resets its connections."""

        self._http = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        self._http.shutdown()
        self._http.server_close()


def owe(database: Database, url: str, alerts: int) -> None:
    """Write incidents with their transitions, three alerts each, the way an evaluation does."""
    found = Silence(silent=True, last_event_at=0, hours=24, expected=480).to_json()
    settings = {"url": url, "secret": SECRET}
    written, number = 0, 0
    with database.write() as conn:
        receivers.add(conn, 1, "bench", "webhook", settings, 0.0)
    while written < alerts:
        with database.write() as conn:
            for _ in range(200):
                number += 1
                row = schema.monitored_models.insert().values(
                    project_id=1, name=f"model-{number}", enabled=True, created_at=0.0
                )
                inserted = conn.execute(row).inserted_primary_key
                assert inserted is not None
                subject: Subject = Subject(1, "silence", f"model-{number}", model_id=inserted[0])
                incident = None
                for hour, state in enumerate(STEPS):
                    if written == alerts:
                        return
                    now = time.time()
                    end = (int(now) // HOUR + hour) * HOUR
                    if state == "ok":
                        assert incident is not None
                        transition = lifecycle.act(incident, "resolve", "bench", "enough", now)
                    else:
                        condition = Condition(state, False, False, end, end - HOUR, "no events", found)
                        made = lifecycle.evaluate(incident, condition, now)
                        assert made is not None
                        transition = made
                    incident = outbox.record(conn, subject if incident is None else incident, transition)
                    written += 1


def owed(database: Database) -> int:
    """Alerts that are not delivered."""
    table = schema.deliveries
    with database.read() as conn:
        query = sa.select(sa.func.count()).select_from(table).where(table.c.state != "delivered")
        return int(conn.execute(query).scalar_one())


def dispatch(url: str, folder: str) -> None:
    """A dispatcher's process."""
    config = SentinelConfig(artifact_store=folder, sql_url=url, alert_networks=["127.0.0.0/8"])
    database = Database(url)
    print("ready", flush=True)
    while deliver(database, config, patience_seconds=60.0).next_at is not None:
        pass


def run(alerts: int, sql_url: str | None, faults: bool) -> bool:
    """One round; returns whether everything arrived once and in order (or twice with the same id)."""
    with tempfile.TemporaryDirectory() as folder:
        url = sql_url or f"sqlite:///{Path(folder) / 'sentinel.db'}"
        database = Database(url)
        database.migrate()
        inbox = Inbox(FAILING, FORGETTING) if faults else Inbox(0.0, 0.0)
        began = time.perf_counter()
        owe(database, inbox.url, alerts)
        writing = time.perf_counter() - began
        kills, life = 0, random.Random(1)
        command = [sys.executable, "-m", "benchmarks.alerts", "--dispatch", url, "--folder", folder]
        began = time.perf_counter()
        while (left := owed(database)) and time.perf_counter() - began < LONGEST_SECONDS:
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as worker:
                assert worker.stdout is not None
                worker.stdout.readline()  # it is loaded: a busy machine takes longer for that than a life lasts
                try:
                    worker.wait(life.uniform(*KILLED_AFTER) if faults else LONGEST_SECONDS)
                except subprocess.TimeoutExpired:
                    worker.send_signal(signal.SIGKILL)
                    kills += 1
        seconds = time.perf_counter() - began
        inbox.close()
        arrived = Counter(one for one, _, _ in inbox.taken)
        stories: dict[int, list[str]] = {}
        seen = set()
        for message, incident, kind in inbox.taken:
            if message not in seen:
                seen.add(message)
                stories.setdefault(incident, []).append(kind)
        order = ["incident.opened", "incident.escalated", "incident.resolved"]
        disordered = sum(story != order[: len(story)] for story in stories.values())
        lost, doubles = alerts - len(arrived), sum(arrived.values()) - len(arrived)
        print(
            f"  {alerts:,} alerts {'through faults' if faults else 'without faults'}: {seconds:.1f} s, "
            f"{alerts / seconds:,.0f}/s (written at {alerts / writing:,.0f}/s), {inbox.posts:,} requests, {kills} kills"
        )
        print(
            f"    lost {lost}, still owed {left}, incidents out of order {disordered}; "
            f"arrived twice with the same webhook-id {doubles}"
        )
        database.close()
        return lost == left == disordered == 0


def main() -> int:
    """Both rounds; 1 where an alert was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--alerts", type=int, default=ALERTS)
    parser.add_argument("--sql-url", help="an empty PostgreSQL database for the round with faults; default: SQLite")
    parser.add_argument("--dispatch", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.dispatch:
        dispatch(arguments.dispatch, arguments.folder)
        return 0
    good = run(arguments.alerts, None, faults=False)
    return 0 if run(arguments.alerts, arguments.sql_url, faults=True) and good else 1


if __name__ == "__main__":
    sys.exit(main())

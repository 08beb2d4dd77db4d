"""From events sent to what is known of a model over time."""

from datetime import UTC, datetime

import numpy as np

from sentinel_core.pipeline import Engine
from sentinel_core.pipeline.context import Context
from tests.api.world import HOUR, NOW, World

DAYS = 6


def live(world: World) -> int:
    """Send six days of a model's events, let them be drained and evaluated; returns the model's id."""
    scores = np.random.default_rng(7).beta(2, 5, (DAYS * 24, 12))
    for day in range(DAYS):
        events = [
            {
                "model_id": "scored",
                "event_time": datetime.fromtimestamp(NOW - (DAYS * 24 - hour) * HOUR + 60 * i, UTC).isoformat(),
                "score": float(scores[hour, i]),
            }
            for hour in range(24 * day, 24 * day + 24)
            for i in range(12)
        ]
        answer = world.ask("ingest key", "POST", "/v1/events/batch", events)
        assert answer.json()["accepted"] == len(events), answer.text
    engine = Engine(Context(world.config, world.store, lambda: NOW + 60.0))
    engine.drain()
    engine.evaluate()
    return int(world.ask("read key", "GET", "/v1/models?name=scored").json()["items"][0]["id"])


def test_a_models_life(world: World) -> None:
    """Events by hour, PSI by hour and distributions are read page by page and by span; strangers read nothing."""
    model = live(world)
    path = f"/v1/models/{model}"
    one = world.ask("read key", "GET", path).json()
    assert (one["events"], one["state"]) == (DAYS * 24 * 12, "ok")

    first = world.ask("read key", "GET", f"{path}/activity?limit=100").json()
    rest = world.ask("read key", "GET", f"{path}/activity?limit=100&cursor={first['next']}").json()
    hours = first["items"] + rest["items"]
    assert [one["events"] for one in hours[: DAYS * 24]] == [12] * DAYS * 24
    assert hours[0]["hour"] == "2027-01-09T08:00:00Z"
    assert rest["next"] is None
    span = "start=2027-01-10T00:30:00Z&end=2027-01-10T03:00:00Z"
    assert len(world.ask("read key", "GET", f"{path}/activity?{span}").json()["items"]) == 3

    scores = world.ask("read key", "GET", f"{path}/drift?limit=1000").json()["items"]
    assert {score["output"] for score in scores} == {"score"}
    assert scores[-1]["hour"] == one["evaluated_until"]
    assert scores[-1]["adjusted"] == one["adjusted_psi"]
    paged = []
    cursor = ""
    while True:
        page = world.ask("read key", "GET", f"{path}/drift?limit=50{cursor}").json()
        paged += page["items"]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert paged == scores

    newest = world.ask("read key", "GET", f"{path}/distributions").json()["items"]
    assert abs(sum(each["baseline"] for each in newest[0]["bins"]) - 1) < 1e-9
    earlier = world.ask("read key", "GET", f"{path}/distributions?hour={scores[-3]['hour']}").json()["items"]
    assert earlier[0]["n_current"] > 0
    for what in ("activity", "drift", "distributions"):
        assert world.ask("other admin key", "GET", f"{path}/{what}").status_code == 404

    pinned = world.ask(
        "operator",
        "POST",
        f"{path}/baseline/pin",
        {"start": "2027-01-10T00:00:00Z", "end": "2027-01-13T00:00:00Z", "reason": "a quiet week"},
    )
    assert pinned.status_code == 200, pinned.text
    kinds = [
        (row["kind"], row["in_use"], row["reason"])
        for row in world.ask("read key", "GET", f"{path}/baselines").json()["items"]
    ]
    assert kinds[0] == ("pinned", True, "a quiet week")
    assert world.ask("operator", "POST", f"{path}/baseline/unpin").json()["version"] == len(kinds) + 1
    assert world.ask("operator", "POST", f"{path}/baseline/accept").json()["version"] == len(kinds) + 2
    assert world.audited()[-3:] == ["baseline.pin", "baseline.unpin", "baseline.accept"]

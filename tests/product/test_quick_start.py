"""The quick start in Python, as a script of a person's own with a model of their own beside it."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.product.product import Product, eventually

pytestmark = pytest.mark.slow

MODEL = '''
from pathlib import Path

import numpy as np
from sentinel_core.models import BaseModel, PredictionResult, TrainingResult


class Mean(BaseModel):
    """Forecasts the mean of what it was shown."""

    def fit(self, X, y):
        self.level = float(np.mean(y))
        return TrainingResult(mae=0.0, mape=0.0, n_samples=len(y), training_policy="retrain")

    def partial_fit(self, X, y):
        return self.fit(X, y)

    def predict(self, X):
        return PredictionResult(values=np.full(self.horizon_steps, self.level))

    def save(self, path):
        Path(path).write_text(str(self.level))

    def load(self, path):
        self.level = float(Path(path).read_text())
'''
SCRIPT = """
import json, sys, threading, time
from pathlib import Path
from sentinel_core import Sentinel, SentinelConfig, WatchConfig
from sentinel_core.models import ExponentialSmoothingModel
from mean import Mean

url, emitter_port, dagster_port = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
config = SentinelConfig(prometheus_url=url, emitter_port=emitter_port, dagster_port=dagster_port,
    artifact_store="./sentinel_artifacts", watches=[
    WatchConfig(metric="demo_latency_seconds", labels={"job": "shop"}, model_class=ExponentialSmoothingModel,
                granularity="15s", horizon="1m", lookback="5m", history="2h", cron="*/1 * * * *"),
    WatchConfig(metric="demo_disk_used_ratio", model_class=Mean, horizon="5m", lookback="10m", history="1h"),
])
sentinel = Sentinel(config)


def look():
    while True:
        time.sleep(2)
        found = sentinel.status()
        learnt_again = all(one["ready"] for one in found.values()) and found[selector]["active_version"] != "v1"
        if learnt_again and Path("seen").exists():  # /metrics is looked at from outside before all of it ends
            break
    before = found[selector]["active_version"]
    report = sentinel.rollback(metric="demo_latency_seconds", labels={"job": "shop"})
    after = sentinel.status()
    print(json.dumps({"before": before, "rolled": report.version, "status": after}), flush=True)
    sentinel.stop()


if __name__ == "__main__":
    selector = 'demo_latency_seconds{job="shop"}'
    threading.Thread(target=look).start()
    sentinel.start()
    print("start has returned", flush=True)
"""


@pytest.fixture
def product(tmp_path: Path) -> Iterator[Product]:
    """A folder with the script and the model."""
    (tmp_path / "mean.py").write_text(MODEL)
    (tmp_path / "script.py").write_text(SCRIPT)
    product = Product(tmp_path)
    try:
        yield product
    finally:
        product.end()


def test_start_status_rollback_and_stop(product: Product, target: str) -> None:
    """A class from a module beside the script forecasts in the children; a thread asks, rolls back and stops."""
    product.start(sys.executable, "script.py", target, str(product.emitter_port), str(product.dagster_port))
    eventually("forecasts of the person's own model", lambda: product.forecasts("demo_disk_used_ratio"))
    (product.folder / "seen").touch()
    eventually("start has returned", lambda: product.said("start has returned"))
    [line] = [one for one in product.log.read_text().splitlines() if one.startswith('{"before"')]
    said = json.loads(line)
    selector = 'demo_latency_seconds{job="shop"}'
    assert set(said["status"]) == {selector, "demo_disk_used_ratio"}
    assert said["rolled"] < int(said["before"].removeprefix("v"))
    assert said["status"][selector]["active_version"] == f"v{said['rolled']}"
    assert said["status"][selector]["pinned"]
    assert {"ready", "active_version_mae", "drift_mae", "buffer_fill", "series", "last_error"} <= set(
        said["status"][selector]
    )
    assert product.processes() == []

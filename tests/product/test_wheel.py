"""The built wheel in an empty folder: from `sentinel init` to a second start that carries on."""

import json
import os
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.product.product import Product, eventually, plain_environment

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]

LATENCY = """
[[watches]]
metric = "demo_latency_seconds"
model_class = "{model}"
granularity = "15s"
horizon = "1m"
lookback = "5m"
history = "6h"
drift_unit = "scaled"
drift_finetune_threshold = 1.5
drift_retrain_threshold = 3.0
"""
DISK = """
[[watches]]
metric = "demo_disk_used_ratio"
model_class = "LinearTrendModel"
horizon = "10m"
history = "6h"
"""
CPU = """
[[watches]]
metric = "demo_cpu_ratio"
model_class = "ExponentialSmoothingModel"
granularity = "30s"
history = "6h"
"""


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel; what it needs is installed too in CI, else taken from the tests' own."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(folder), str(ROOT)], check=True)
    [wheel] = folder.glob("*.whl")
    home = folder / "venv"
    venv.create(home, symlinks=True)
    install = [*pip, "--python", str(home / "bin/python"), "install", str(wheel)]
    if os.environ.get("CI"):  # the only place where a dependency that nobody declared is missed
        subprocess.run(install, check=True)
    else:
        subprocess.run([*install, "--no-deps"], check=True)
        [packages] = home.glob("lib/python*/site-packages")
        parents = [entry for entry in sys.path if entry.endswith("-packages")]
        (packages / "parent.pth").write_text("\n".join(parents) + "\n")
    return home / "bin/sentinel"


def test_everything_that_is_imported_is_declared(installed: Path) -> None:
    """Every module of the wheel imports, and so does what it imports only for S3."""
    program = (
        "import importlib, pkgutil, obstore.fsspec, sentinel_core, sentinel_dagster\n"
        "for package in (sentinel_core, sentinel_dagster):\n"
        "    for module in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
        "        if '.migrations.' not in module.name: importlib.import_module(module.name)\n"  # alembic runs those
    )
    subprocess.run([installed.parent / "python", "-c", program], env=plain_environment(), cwd="/", check=True)


@pytest.fixture
def product(installed: Path, tmp_path: Path) -> Iterator[Product]:
    """An empty folder."""
    product = Product(tmp_path, [str(installed)])
    try:
        yield product
    finally:
        product.end()


def test_from_an_empty_folder_to_forecasts_and_on(product: Product, target: str) -> None:
    """init, check, up, status, rollback, reload, Ctrl-C and up again do what the README says."""
    home = Path(product.command[0]).parent / "python"
    where = subprocess.run(
        [home, "-c", "import sentinel_core; print(sentinel_core.__file__)"],
        cwd=product.folder,
        env=plain_environment(),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert where.startswith(str(home.parents[1]))  # not the working tree
    assert product.run("init").returncode == 0
    assert product.run("init").returncode == 2  # what a person has edited is never overwritten
    product.configure(target, LATENCY.format(model="ExponentialSmoothingModel") + DISK)
    checked = product.run("check")
    assert checked.returncode == 0, checked.stderr
    assert "2 of 2 watches can work" in checked.stdout

    product.start()
    began = time.monotonic()
    eventually("Dagster is up", lambda: product.said("Dagster is up"))
    up = time.monotonic()
    for metric in ("demo_latency_seconds", "demo_disk_used_ratio"):
        eventually(f"forecasts of {metric}", lambda metric=metric: product.forecasts(metric), 60)
    print(f"Dagster's UI after {up - began:.0f} s, forecasts of both watches {time.monotonic() - up:.0f} s later")

    status = json.loads(product.run("status", "--json").stdout)
    assert {name: entry["active_version"] for name, entry in status.items()} == {
        "demo_latency_seconds": "v1",
        "demo_disk_used_ratio": "v1",
    }
    rolled = product.run("rollback", "demo_disk_used_ratio")
    assert rolled.returncode == 1
    assert "no predecessor" in rolled.stderr
    assert "Traceback" not in rolled.stderr

    product.configure(target, LATENCY.format(model="LinearTrendModel") + CPU)
    reloaded = product.run("reload")
    assert reloaded.returncode == 0, reloaded.stderr
    assert "new watch demo_cpu_ratio" in reloaded.stdout
    eventually("the removed watch has left", lambda: product.metrics() and not product.forecasts("disk_used_ratio"), 20)
    eventually("forecasts of the new watch", lambda: product.forecasts("demo_cpu_ratio"))
    eventually(
        "the changed model serves",
        lambda: {one.label("sentinel_version") for one in product.forecasts("demo_latency_seconds")} == {"v2"},
    )
    rolled = product.run("rollback", "demo_latency_seconds")
    assert rolled.returncode == 0, rolled.stderr
    assert rolled.stderr == ""  # Dagster has recorded it too
    assert {one.label("sentinel_version") for one in product.forecasts("demo_latency_seconds")} == {"v1"}

    assert product.interrupt() < 12
    assert product.processes() == []
    before = product.run("status", "--json")
    product.start()
    began = time.monotonic()
    eventually("forecasts of before", lambda: product.forecasts("demo_latency_seconds"), 30)
    print(f"forecasts {time.monotonic() - began:.0f} s after the second start")
    origin = max(entry["last_tick"] for entry in json.loads(before.stdout).values())
    eventually(
        "a tick of the second start",
        lambda: json.loads(product.run("status", "--json").stdout)["demo_latency_seconds"]["last_tick"] > origin,
    )
    versions = {
        name: (entry["active_version"], entry["pinned"])
        for name, entry in json.loads(product.run("status", "--json").stdout).items()
    }
    assert versions == {"demo_latency_seconds": ("v1", True), "demo_cpu_ratio": ("v1", False)}
    assert product.interrupt() < 12
    assert product.processes() == []

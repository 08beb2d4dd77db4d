"""Accuracy, bounds and cost of the default model beside what people could install instead, in one run.

    python -m benchmarks.accuracy [--full] [--sets a,b] [--peers a,b] [--folder ../shared/accuracy] [--out FOLDER]

The series are other people's and stay where they are, beside the harness that asks for forecasts from rolling origins:
its accbench.py runs each model in a process of its own, its leaderboard.py sums up. We add how many times our CPU time
each peer needs; exit 1 where a model that could be asked has not answered.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = ROOT.parent / "shared" / "accuracy"
OURS = "SeasonalRidgeModel"
PEERS = {  # of a name: the adapter in the harness, and the package that it needs
    "seasonal_naive": ("snaive", None),
    "last_value": ("naive", None),
    "LightGBM": ("mlf_lightgbm", "mlforecast"),
    "MSTL": ("sf_mstl", "statsforecast"),
    "AutoETS": ("sf_autoets", "statsforecast"),
    "DynamicTheta": ("sf_dynopttheta", "statsforecast"),
    "AutoARIMA": ("sf_autoarima", "statsforecast"),
}
USUAL = ("seasonal_naive", "last_value", "LightGBM", "AutoETS", "MSTL")  # minutes; the others take longer still


def main() -> int:
    """Ask each model for its forecasts and print the leaderboard."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--full", action="store_true", help="every series, over hours; default: a part, ever the same")
    parser.add_argument("--sets", default="", help="data sets, with commas; default: all")
    parser.add_argument("--peers", default=",".join(USUAL), help=f"of {', '.join(PEERS)}; default: %(default)s")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where harness and data are; default: %(default)s")
    parser.add_argument("--out", type=Path, help="keeps what the harness found; default: nothing is kept")
    arguments = parser.parse_args()
    peers = [name for name in arguments.peers.split(",") if name]
    if unknown := sorted(set(peers) - set(PEERS)):
        parser.error(f"no peer {', '.join(unknown)}; there are {', '.join(PEERS)}")
    if not (arguments.folder / "accbench.py").is_file():
        print(f"{arguments.folder} has no harness: its series are not ours to hand on, and without them nothing is run")
        return 0
    adapters = {OURS: "benchmarks.accuracy_adapter:default"}
    for name in peers:
        adapter, package = PEERS[name]
        if package is None or find_spec(package) is not None:
            adapters[name] = f"adapters:{adapter}"
        else:
            print(f"{name} is left out: {package} is not installed; `make bench-accuracy` brings it")
    with tempfile.TemporaryDirectory() as temporary:
        out = (arguments.out or Path(temporary)).resolve()
        data = ["--data", arguments.folder / "data_dev", *([] if arguments.full else ["--core"])]
        sets = ["--sets", arguments.sets] if arguments.sets else []
        run = [arguments.folder / "accbench.py", "--out", out, *data, *sets]
        silent = [name for name, one in adapters.items() if not harness(*run, "--name", name, "--adapter", one)]
        board = arguments.folder / "leaderboard.py", out, *sets, "--models", ",".join(adapters)
        print()
        harness(*board)
        harness(*board, "--against", OURS)
        print_costs(out, [name for name in adapters if name not in silent])
    return 1 if silent else 0


def harness(*command: str | Path) -> bool:
    """Whether one of its programs went through; it finds the adapter's package in our folder."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")  # others' waiting is no CPU time of ours
    environment = {**os.environ, **threads, "PYTHONDONTWRITEBYTECODE": "1"}
    return not subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, check=False).returncode


def print_costs(out: Path, names: Iterable[str]) -> None:
    """CPU time of fit and forecast per series over all sets, and as a multiple of ours."""
    costs = {}
    for name in names:
        found = json.loads((out / f"{name}.json").read_text()).values()
        calls = sum(one["calls"] for one in found)
        costs[name] = sum(one["ms_per_series_cpu"] * one["calls"] for one in found) / calls
    print("\nms CPU per series over all sets, fit and forecast, and how many times ours")
    for name, cost in costs.items():
        print(f"{name:20} {cost:8.2f}" + (f" {cost / costs[OURS]:8.1f}" if OURS in costs else ""))


if __name__ == "__main__":
    sys.exit(main())

"""Every benchmark under a heading: `python -m benchmarks [NAME …]`; exit 1 when one misses its limit.

Each runs in a process of its own, because the peak of memory is the process'.
"""

import argparse
import os
import platform
import subprocess
import sys
from datetime import date

BENCHMARKS = {
    "decode": "Decoding Prometheus' answers",
    "fit": "Fitting and forecasting with each built-in",
    "tick": "The compute of a tick, as series and watches grow",
    "exposition": "/metrics with 100,000 gauges",
    "psi": "PSI of 1,000 models over 10 million events",
    "ingest": "Durable ingest of prediction events",
    "query": "The query API over 1,000 series",
    "alerts": "5,000 alerts through faults and kills",
}


def main() -> int:
    """Run what is asked for, one after the other."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; default: all")
    names = parser.parse_args().names or list(BENCHMARKS)
    if unknown := sorted(set(names) - set(BENCHMARKS)):
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    print(f"{date.today()}, Python {platform.python_version()}, {os.cpu_count()} CPUs, {platform.machine()}")
    missed = []
    for name in names:
        print(f"\n== {BENCHMARKS[name]} ({name})", flush=True)
        if subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], env=environment, check=False).returncode:
            missed.append(name)
    if missed:
        print(f"\nabove a limit, or failed: {', '.join(missed)}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())

"""Decoding 10,000 series x 1,440 points as the client does it (in requests of 1.5 M samples), beside json.loads.

python -m benchmarks.decode
"""

import json
import random
import resource
import time
from collections.abc import Iterator

import numpy as np

from sentinel_core.prometheus.client import MAX_SAMPLES
from sentinel_core.prometheus.decode import MatrixBuilder
from sentinel_core.windows import IntArray, grid

SERIES, POINTS, STEP = 10_000, 1_440, 60
SLICE = 10  # json.loads sees a tenth of the series, to be done sooner
LIMIT_SECONDS, LIMIT_MB = 3.5, 1_500


def answers(series: int, times: IntArray, points: int, seed: int = 7) -> Iterator[bytes]:
    """Answers of range queries of `points` each, as Prometheus writes them; every other value a full double."""
    rng = random.Random(seed)
    values = [f'"{50 + rng.gauss(0, 20)!r}"' if k % 2 else f'"{50 + rng.gauss(0, 20):.4f}"' for k in range(10_007)]
    for first in range(0, len(times), points):
        chunk = times[first : first + points].tolist()
        rows = []
        for i in range(series):
            offset = rng.randrange(len(values))
            samples = ",".join(f"[{t},{values[(offset + k) % len(values)]}]" for k, t in enumerate(chunk))
            labels = f'"__name__":"demo_load","instance":"host-{i:06d}","job":"demo","zone":"z{i % 3}"'
            rows.append(f'{{"metric":{{{labels}}},"values":[{samples}]}}')
        body = f'{{"status":"success","data":{{"resultType":"matrix","result":[{",".join(rows)}]}}}}'
        del rows
        yield body.encode()


def decode_seconds(series: int, times: IntArray, points: int) -> float:
    """CPU seconds that MatrixBuilder needs; making the answers is not counted."""
    builder = MatrixBuilder(times, STEP, series)
    seconds = 0.0
    for body in answers(series, times, points):
        started = time.process_time()
        builder.add(body)
        seconds += time.process_time() - started
    matrix = builder.matrix()
    assert matrix.samples.sum() == series * len(times)
    return seconds


def json_seconds(series: int, times: IntArray, points: int) -> float:
    """CPU seconds that json.loads and a loop into an array need, for the same answers."""
    seconds = 0.0
    for body in answers(series, times, points):
        started = time.process_time()
        for row in json.loads(body)["data"]["result"]:
            np.array([float(value) for _, value in row["values"]])
        seconds += time.process_time() - started
    return seconds


def run() -> None:
    """Print what was measured; exit with 1 above the limits."""
    times = grid(1_700_000_040, 1_700_000_040 + (POINTS - 1) * STEP, STEP)
    points = MAX_SAMPLES // SERIES
    seconds = decode_seconds(SERIES, times, points)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # the answers' own making is in it
    slow = json_seconds(SERIES // SLICE, times, points) * SLICE
    print(
        f"decode of {SERIES} x {POINTS}: {seconds:.2f} CPU s (limit {LIMIT_SECONDS}), peak {peak:.0f} MB ({LIMIT_MB})"
    )
    print(f"json.loads: {slow:.1f} s, scaled from a tenth of the series; ratio {slow / seconds:.1f}")
    if seconds > LIMIT_SECONDS or peak > LIMIT_MB:
        raise SystemExit(1)


if __name__ == "__main__":
    run()

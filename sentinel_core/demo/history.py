"""The demo shop's past as an OpenMetrics file, for `promtool tsdb create-blocks-from openmetrics`."""

from pathlib import Path

import numpy as np

from sentinel_core.demo.signals import SCRAPE_PHASE, SCRAPE_SECONDS, signals
from sentinel_core.series import quote
from sentinel_core.windows import grid

HISTORY_SECONDS = 7 * 86_400


def write_openmetrics(path: Path, start: int, end: int) -> int:
    """Write every scrape in [start, end] (unix seconds) and return the number of samples."""
    timestamps = grid(start - SCRAPE_PHASE, end - SCRAPE_PHASE, SCRAPE_SECONDS) + SCRAPE_PHASE
    stamps = [str(stamp) for stamp in timestamps.tolist()]
    family = ""
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for signal in signals():
            if signal.family != family:
                family = signal.family
                file.write(f"# HELP {family} {signal.help}\n# TYPE {family} {signal.kind}\n")
            inner = ",".join(f"{key}={quote(value)}" for key, value in signal.series.labels)
            prefix = f"{signal.series.name}{{{inner}}} "
            values = signal.at(timestamps.astype(np.float64)).tolist()
            file.writelines(f"{prefix}{value!r} {stamp}\n" for value, stamp in zip(values, stamps, strict=True))
            count += len(values)
        file.write("# EOF\n")
    return count

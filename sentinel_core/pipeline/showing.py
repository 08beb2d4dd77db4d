"""What models are shown of the stored windows: all but the samples in the spans that a watch ignores.

Everything that learns, forecasts or judges for a watch reads its windows here; what is stored stays as it was scraped.
"""

import numpy as np

from sentinel_core.config import WatchConfig
from sentinel_core.models.rows import newest_values
from sentinel_core.pipeline.context import Context
from sentinel_core.storage import windows_store
from sentinel_core.windows import IntArray, Window

HELD_STEPS = 12  # before an ignored span: among so many, the newest sample is what stands in for it


def shown_window(context: Context, watch: WatchConfig, fingerprints: IntArray, start: int, end: int) -> Window:
    """`windows_store.read_window` for a watch: gaps where it ignores what there was."""
    window = windows_store.read_window(context.store, watch.step_seconds, fingerprints, start, end)
    return window.without(watch.ignored)


def context_window(context: Context, watch: WatchConfig, fingerprints: IntArray, origin: int, steps: int) -> Window:
    """The newest `steps` columns up to an origin, of series in any order.

    Where they begin within an ignored span, the first one holds the newest value from before it: a model that forgets
    within an hour would otherwise know nothing after a day that is ignored.
    """
    step, fingerprints = watch.step_seconds, np.sort(fingerprints)
    start = origin - (steps - 1) * step
    window = shown_window(context, watch, fingerprints, start, origin)
    began = [first for first, last in watch.ignored if first <= start <= last]
    if began:
        before = windows_store.read_window(
            context.store, step, fingerprints, began[0] - HELD_STEPS * step, began[0] - 1
        )
        window.values[:, 0] = newest_values(before.values)[0]
    return window

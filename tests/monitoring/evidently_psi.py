"""What Evidently says the PSI of two histograms of labels is; its numeric bins are others than ours.

    python tests/monitoring/evidently_psi.py

writes `evidently_psi.json` beside this file, in an environment with `evidently==0.7.23` and `pandas<3`: it needs more
packages than our tests should, so they compare with what it has said, and with it itself where it is installed.
"""

import json
from pathlib import Path

import numpy as np

FILE = Path(__file__).with_suffix(".json")
CASES, EVENTS = 8, 50_000


def histograms() -> list[tuple[list[int], list[int]]]:
    """Pairs of a baseline and a current histogram: 2 to 15 labels, from no drift to much."""
    rng = np.random.default_rng(20)
    pairs = []
    for case in range(CASES):
        shares = rng.dirichlet(np.full(2 + case * 2 - case // 7, 5.0))
        moved = shares * np.exp(rng.normal(0, 0.15 * case, len(shares)))
        baseline, current = rng.multinomial(EVENTS, shares), rng.multinomial(EVENTS // 4, moved / moved.sum())
        pairs.append((baseline.tolist(), current.tolist()))
    return pairs


def evidently_psi(baseline: list[int], current: list[int]) -> float:
    """By its public API."""
    import pandas as pd  # type: ignore[import-not-found]
    from evidently import DataDefinition, Dataset, Report  # type: ignore[import-not-found]
    from evidently.metrics import ValueDrift  # type: ignore[import-not-found]

    definition = DataDefinition(categorical_columns=["label"])
    sides = [
        Dataset.from_pandas(
            pd.DataFrame({"label": np.repeat([f"label {k}" for k in range(len(side))], side)}),
            data_definition=definition,
        )
        for side in (baseline, current)
    ]
    result = Report([ValueDrift(column="label", method="psi")]).run(reference_data=sides[0], current_data=sides[1])
    return float(json.loads(result.json())["metrics"][0]["value"])


if __name__ == "__main__":
    import evidently

    cases = [{"baseline": b, "current": c, "psi": evidently_psi(b, c)} for b, c in histograms()]
    FILE.write_text(json.dumps({"evidently": evidently.__version__, "cases": cases}, indent=1) + "\n")

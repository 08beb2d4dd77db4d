import json

import numpy as np
import pytest

from sentinel_core.monitoring import psi
from tests.monitoring.evidently_psi import FILE, evidently_psi, histograms


def _ours(baseline: list[int], current: list[int]) -> float:
    return float(psi.psi(np.array(baseline, float), np.array(current, float)))


def test_psi_of_labels_is_what_evidently_says() -> None:
    """Over the same bins the PSI is Evidently's, but for the half event that we add to each: a percent or 0.0005."""
    cases = json.loads(FILE.read_text())["cases"]
    assert [(case["baseline"], case["current"]) for case in cases] == histograms()
    for case in cases:
        assert _ours(case["baseline"], case["current"]) == pytest.approx(case["psi"], rel=0.01, abs=5e-4)


@pytest.mark.slow
def test_psi_of_labels_is_what_evidently_says_today() -> None:
    """The same against the installed Evidently."""
    pytest.importorskip("evidently", reason="pip install evidently 'pandas<3'")
    for baseline, current in histograms():
        assert _ours(baseline, current) == pytest.approx(evidently_psi(baseline, current), rel=0.01, abs=5e-4)

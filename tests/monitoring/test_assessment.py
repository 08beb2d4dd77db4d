import json

import numpy as np

from sentinel_core.config import MonitorConfig
from sentinel_core.monitoring import monitor
from sentinel_core.monitoring.assessment import Assessment, describe
from sentinel_core.monitoring.histograms import WIDTH, Bins
from sentinel_core.monitoring.monitor import Settings, State, Verdicts

SCORE = Bins("numeric", edges=(0.25, 0.5, 0.75))
LABEL = Bins("label", labels=(1, 2))
HOUR = 1_767_225_600


def _verdicts(score: list[float], label: list[float], events: float = 480) -> Verdicts:
    """Two outputs of a model whose last day had these shares, after five weeks of equal ones."""
    rng = np.random.default_rng(1)
    blocks = np.zeros((2, 35, WIDTH))
    for row, today in enumerate((score, label)):
        past = np.array([1 / len(today)] * len(today))
        blocks[row, :, : len(today)] = rng.poisson(events * past, (35, len(today)))
        blocks[row, 0, : len(today)] = np.array(today) * events
    return monitor.assess(blocks, 1, np.array([35, 35]), Settings.of([MonitorConfig()] * 2))


def _described(verdicts: Verdicts) -> Assessment:
    return describe(verdicts, [0, 1], [0, 2], [SCORE, LABEL], {1: "approve"}, HOUR, 3)


def test_a_model_is_as_bad_as_its_worst_output() -> None:
    """The label drifts and the score does not: the model is critical, not calm, and the label is shown first."""
    found = _described(_verdicts([0.25] * 4, [0.9, 0.1]))
    assert [one.state for one in found.outputs] == [State.OK, State.CRITICAL]
    assert found.state == State.CRITICAL
    assert not found.calm
    assert found.worst is found.outputs[1]
    assert found.worst.output == "label"


def test_bins_add_up_to_the_psi() -> None:
    """Each bin has its name, both shares, and its part of the PSI; unused bins have no part."""
    worst = _described(_verdicts([0.25] * 4, [0.9, 0.1])).worst
    assert worst is not None
    assert [one.name for one in worst.bins] == ["approve", "label 0000000000000002", "other", "new", "missing"]
    assert sum(one.baseline for one in worst.bins) == 1
    assert sum(one.current for one in worst.bins) == 1
    assert abs(sum(one.contribution for one in worst.bins) - (worst.psi or 0)) < 1e-12
    assert [one.contribution for one in worst.bins[2:]] == [0, 0, 0]
    assert worst.n_current == 480


def test_an_output_without_a_verdict_hides_none_with() -> None:
    """A model is judged by the outputs that have enough events, and has no state but too few where none has."""
    verdicts = _verdicts([0.25] * 4, [0.9, 0.1])
    scarce = _verdicts([0.25] * 4, [0.5, 0.5], events=20)
    for name in ("state", "psi", "adjusted", "calm", "eased", "limit"):
        getattr(verdicts, name)[0] = getattr(scarce, name)[0]
    mixed = _described(verdicts)
    assert mixed.state == State.CRITICAL
    assert mixed.outputs[0].state == State.INSUFFICIENT_DATA
    assert mixed.outputs[0].psi is None
    nothing = _described(scarce)
    assert nothing.state == State.INSUFFICIENT_DATA
    assert not nothing.calm
    assert not nothing.eased


def test_a_model_without_outputs_has_no_data() -> None:
    """Nothing to describe is no data, and no worst output."""
    found = describe(_verdicts([1.0], [1.0]), [], [], [], {}, HOUR, None)
    assert (found.state, found.worst, found.calm, found.silent) == (State.NO_DATA, None, False, False)


def test_an_assessment_survives_json() -> None:
    """What is stored reads back the same, and JSON has no NaN in it."""
    for found in (
        _described(_verdicts([0.25] * 4, [0.9, 0.1])),
        _described(_verdicts([0.25] * 4, [0.5, 0.5], events=20)),
    ):
        assert Assessment.from_json(found.to_json()) == found
        assert "NaN" not in found.to_json()
        assert json.loads(found.to_json())["state"] == int(found.state)

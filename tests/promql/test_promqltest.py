"""Files of Prometheus' promqltest language: ours, those at hand, and that the runner itself does not look away."""

from pathlib import Path

import pytest

from tests.promqltest import main, run
from tests.promqltest_language import milliseconds

CASES = sorted((Path(__file__).parent / "cases").glob("*.test"))
SHARED = sorted((Path(__file__).parents[3] / "shared" / "promqltest").glob("*.test"))
LOADED = 'load 1m\n  up{job="api"} 1 _ 3+2x2 stale 0x1\n  h {{count:1}}\n\n'


def verdict(text: str, loaded: str = LOADED) -> str:
    """The outcome of one case."""
    (only,) = run(loaded + text)
    return only.outcome


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_our_own_cases(path: Path) -> None:
    """Every case of ours passes."""
    assert [f"{one.why} ({one.case})" for one in run(path.read_text()) if one.outcome != "passed"] == []


@pytest.mark.skipif(not SHARED, reason="Prometheus' own files are not there")
@pytest.mark.parametrize("path", SHARED, ids=lambda path: path.stem)
def test_cases_of_prometheus(path: Path) -> None:
    """Of Prometheus' own cases none has a wrong answer, and what is not supported are native histograms."""
    verdicts = list(run(path.read_text()))
    assert [one for one in verdicts if one.outcome == "wrong"] == []
    reasons = {one.why.split(":")[0] for one in verdicts if one.outcome == "unsupported"}
    assert reasons <= {"native histograms", "a string that is not UTF-8"}


def test_points_are_read_as_prometheus_writes_them() -> None:
    """Points repeat, grow, are missing, or end a series."""
    assert verdict('eval range from 0 to 7m step 1m up\n  up{job="api"} 1 1 3 5 7 _ 0 0\n') == "passed"


@pytest.mark.parametrize(
    ("case", "outcome"),
    [
        ('eval instant at 0 up\n  up{job="api"} 1', "passed"),
        ('eval instant at 0 up\n  up{job="api"} 1.000001', "passed"),
        ('eval instant at 0 up\n  up{job="api"} 1.00001', "wrong"),
        ('eval instant at 0 up\n  up{job="web"} 1', "wrong"),
        ("eval instant at 0 up", "wrong"),
        ("eval instant at 0 nothing\n  nothing 1", "wrong"),
        ('eval range from 0 to 1m step 1m up\n  up{job="api"} 1 _', "wrong"),
        ("eval instant at 0 1\n  {} 1", "wrong"),
        ("eval instant at 0 1\n  1", "passed"),
        ("eval instant at 0 vector(1)\n  1", "wrong"),
        ("eval instant at 0 'a'\n  expect string \"a\"", "passed"),
        ("eval instant at 0 'a'\n  expect string \"b\"", "wrong"),
        ("eval instant at 0 up\n  expect fail", "wrong"),
        ("eval_fail instant at 0 up", "wrong"),
        ("eval_fail instant at 0 info(up)", "unsupported"),
        ("eval instant at 0 {__name__=~'up'} offset 1m offset 1m\n  expect fail", "passed"),
        ("eval instant at 0 topk(NaN, up)\n  expect fail msg: other words", "unsupported"),
        ("eval instant at 0 topk(NaN, up)\n  expect fail regex: value is .aN", "passed"),
        ("eval instant at 0 topk(NaN, up)\n  {} 1", "wrong"),
        ("eval instant at 0 nonsense(up)\n  {} 1", "unsupported"),
        ("eval instant at 0 h\n  h {{count:1}}", "unsupported"),
        ("eval instant at 0 vector(1)\n  {} {{count:1}}", "wrong"),
        ('eval instant at 2m rate(up[3m])\n  expect no_info\n  {job="api"} 0.012345', "wrong"),
        ("eval instant at 0 quantile(2, up)\n  expect no_warn\n  {} +Inf", "wrong"),
        ("eval instant at 0 quantile(2, up)\n  expect warn\n  {} +Inf", "passed"),
        ("eval_warn instant at 0 quantile(2, up)\n  {} +Inf", "passed"),
        ("eval instant at 0 quantile(2, up)\n  expect warn msg: other words\n  {} +Inf", "wrong"),
        ("eval instant at 0 sum(up)\n  expect warn\n  {} 1", "wrong"),
        ('eval instant at 0 up smoothed\n  up{job="api"} 1', "unsupported"),
        ("eval sometimes up", "unsupported"),
        ('eval instant at 0 up\n  up{job="api"} 1 1', "unsupported"),
        ("eval instant at 2m start()\n  120", "passed"),
        ("eval instant at 0 1 - +(up[5m])\n  expect fail", "passed"),
    ],
)
def test_outcomes(case: str, outcome: str) -> None:
    """An answer that differs is wrong, and a refusal is none."""
    assert verdict(case) == outcome


def test_what_cannot_be_loaded_judges_nothing() -> None:
    """Until it is cleared away, no case passes beside points that cannot be read."""
    case = "eval instant at 0 1\n  1\n\n"
    found = run(f"load 1m\n  up @1 2\n\n{case}clear\n{case}rest a while\n  and go on\n\n{case}")
    outcomes = [one.outcome for one in found]
    assert outcomes == ["unreadable", "unsupported", "passed", "unreadable", "unsupported"]


def test_a_crash_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception of ours is a wrong answer, and the cases after it are judged."""
    monkeypatch.setattr("tests.promqltest.evaluate", lambda *given: 1 / 0)
    assert [one.outcome for one in run("eval instant at 0 1\n  1\n\n" * 2)] == ["wrong", "wrong"]


def test_buckets_loaded_with_their_native_histogram() -> None:
    """What load_with_nhcb adds is a native histogram, which is not supported."""
    loaded = 'load_with_nhcb 1m\n  size_bucket{le="1"} 1\n  size_bucket{le="+Inf"} 1\n\n'
    assert verdict("eval instant at 0 count(size_bucket)\n  {} 2", loaded) == "passed"
    assert verdict("eval instant at 0 count(size)\n  {} 1", loaded) == "unsupported"


def test_start_timestamps_are_not_supported() -> None:
    """Counters that say since when they count are refused, the others of the same block are not."""
    loaded = 'load 1m\n  a_total{k="v"}@st -1mx2\n  a_total{k="v"} 0+1x2\n  b_total 0+1x2\n\n'
    assert verdict("eval instant at 2m increase(a_total[2m])", loaded) == "unsupported"
    assert verdict("eval instant at 2m increase(b_total[2m])\n  {} 2", loaded) == "passed"


def test_durations() -> None:
    """Times are durations or seconds."""
    assert [milliseconds(text) for text in ("1h30m", "50ms", "-10s", "2.5", "1e3")] == [
        5400000,
        50,
        -10000,
        2500,
        10**6,
    ]


def test_main(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Counts are printed by file, wrong cases with their reason, and the program fails."""
    good, bad = tmp_path / "good.test", tmp_path / "bad.test"
    good.write_text("eval instant at 0 1\n  1\n")
    bad.write_text("eval instant at 0 1\n  2\n\neval instant at 0 foo smoothed\n\nwait\n")
    assert main([str(good)]) == 0
    assert main(["-v", str(good), str(bad)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "good.test: 1 passed, 0 wrong, 0 unsupported",
        "total: 1 passed, 0 wrong, 0 unsupported",
        "good.test: 1 passed, 0 wrong, 0 unsupported",
        "  wrong bad.test:1: 1: expected 2.0, but it is 1.0",
        "  unsupported bad.test:4: foo smoothed: smoothed and anchored: not supported by Sentinel's query API",
        "  unreadable bad.test:6: wait: no command of this language",
        "bad.test: 0 passed, 1 wrong, 1 unsupported, 1 unreadable",
        "total: 1 passed, 1 wrong, 1 unsupported, 1 unreadable",
    ]

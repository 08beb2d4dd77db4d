"""`sentinel evaluate` as people use it: a process, the demo's week, a page that needs nothing else."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import tomllib
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import replace
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from sentinel_core import SentinelConfig
from sentinel_core.backtest import SCORES, Advice, Standing
from sentinel_core.demo.target import Handler
from sentinel_core.evaluation import describe, page, table
from sentinel_core.pipeline.reports import BacktestReport
from sentinel_core.plots import backtest_png

PNG = b"\x89PNG"
NAN = float("nan")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A sentinel.toml with a watch of the demo's CPUs, and one of nothing."""
    monkeypatch.delenv("SENTINEL_CONFIG", raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        settings = {"prometheus_url": f"http://127.0.0.1:{server.server_address[1]}"}
        watches = [
            'metric = "demo_cpu_ratio"\ngranularity = "5m"\nhorizon = "1h"\nlookback = "2h"\nhistory = "2d"',
            'metric = "demo_nothing"',
        ]
        lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
        lines += [f'[[watches]]\nmodel_class = "LinearTrendModel"\n{watch}' for watch in watches]
        (tmp_path / "sentinel.toml").write_text("\n".join(lines))
        yield tmp_path
        server.shutdown()
        thread.join()


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """The command as a process group of its own."""
    command = [sys.executable, "-m", "sentinel_core.cli", "evaluate", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=folder, text=True, start_new_session=True, **pipes)


def test_every_watch_is_judged_shown_and_advised_on(folder: Path) -> None:
    """A table for each watch, files that need no other, and a line that is valid in the configuration."""
    done = start(folder, "--since", "4d", "--output", "found")
    told, said = done.communicate(timeout=120)
    assert (done.returncode, said) == (0, "")
    assert "3 series; 4 trainings, 96 origins from " in told
    assert "at 5m / 30m / 1h ahead; bounds for 95%" in told
    for model in ("LinearTrendModel (yours)", "ARIMAModel", "SGDRegressorModel", "seasonal naive"):
        assert re.search(rf"^  {re.escape(model)}  .*( / .*){{8}}%", told, re.MULTILINE), model
    assert re.search(r"PROBLEM: .*has no series demo_nothing", told)
    [line] = re.findall(r"^    (model_class = .*)$", told, re.MULTILINE)  # a line through a day's waves is not the best
    file = tomllib.loads((folder / "sentinel.toml").read_text())
    file["watches"][0] |= tomllib.loads(line)
    assert f"Take {SentinelConfig.from_dict(file).watches[0].model_class} instead of LinearTrendModel: " in told
    [plot] = (folder / "found").glob("demo_cpu_ratio-*.png")
    assert plot.read_bytes().startswith(PNG)
    shown = (folder / "found" / "index.html").read_text()
    assert plot.read_bytes() in [
        b64decode(image) for image in re.findall(r'src="data:image/png;base64,([^"]+)"', shown)
    ]
    assert not re.findall(r"(?:src|href)\s*=\s*[\"'](?!data:)|@import|url\(", shown)
    assert "has no series demo_nothing" in shown


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--watch", "demo_nothing"], 1, ""),
        (["--watch", "else"], 2, "no watch is else; configured: demo_cpu_ratio (slug"),
        (["--since", "soon"], 1, "sentinel: --since: "),
    ],
)
def test_what_cannot_be_done_is_said(folder: Path, arguments: list[str], code: int, words: str) -> None:
    """Without a traceback; where no watch could be judged, the exit code says so."""
    done = start(folder, *arguments)
    _, said = done.communicate(timeout=60)
    assert (done.returncode, words in said, "Traceback" in said) == (code, True, False)


def test_ctrl_c_ends_it_and_its_workers(folder: Path) -> None:
    """Exit code 130, and no process is left of its group."""
    done = start(folder, "--since", "4d")
    until = time.monotonic() + 60
    while not _group(done.pid) - {done.pid} and time.monotonic() < until:
        time.sleep(0.05)
    os.kill(done.pid, signal.SIGINT)
    _, said = done.communicate(timeout=60)
    assert (done.returncode, said) == (130, "")
    while _group(done.pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert not _group(done.pid)


def _group(pid: int) -> set[int]:
    """The processes of a group that live."""
    listed = subprocess.run(["ps", "-eo", "pgid=,pid=,stat="], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in listed.splitlines()]
    return {int(row[1]) for row in rows if int(row[0]) == pid and not row[2].startswith("Z")}


REPORT = BacktestReport(
    "hits-1",
    'hits{path="</script><b>",x=~"^$_{$"}',
    60,
    0.9,
    "A",
    leads=(1, 2, 3, 5),
    reported=(1, 3, 5),
    series=256,
    of_series=10_000,
    start=1_700_000_000,
    end=1_700_086_400,
    trained=4,
    origins=96,
    standings=(
        Standing("B", dict.fromkeys(SCORES, (0.5, 0.6, 0.7, 0.8)), 0.64, (0.64,) * 4, 1_234.5),
        Standing("A", dict.fromkeys(SCORES, (NAN,) * 4), NAN, (), None, "it hung"),
    ),
    advice=Advice("Take B.", "B"),
)


def test_tables_say_what_is_known() -> None:
    """Numbers at the reported leads, the size of a draw, and what went wrong."""
    assert list(describe(REPORT)) == [
        f"{REPORT.selector}  (slug hits-1)",
        "  256 of 10,000 series; 4 trainings, 96 origins from 2023-11-14 22:13 to 2023-11-15 22:13 UTC",
        "  at 1m / 3m / 5m ahead; bounds for 90%",
    ]
    head, found = table(REPORT)
    assert [cell.strip() for cell in head] == ["MODEL", "MAE", "MASE", "BIAS", "INSIDE", "MS CPU", "PROBLEM"]
    assert found[0] == [
        "  B",
        "0.5 / 0.7 / 0.8",
        "0.5 / 0.7 / 0.8",
        "+0.5 / +0.7 / +0.8",
        "50% / 70% / 80%",
        "1,234.5",
        "",
    ]
    assert (found[1][0], found[1][-2:]) == ("  A (yours)", ["-", "it hung"])


def test_the_page_quotes_what_it_was_given() -> None:
    """A selector is text, whatever stands in it; a watch without a result says why."""
    shown = page([(REPORT, backtest_png(REPORT)), (replace(REPORT, advice=None, problem="it <rests>"), None)])
    assert "</script><b>" not in shown
    assert "it &lt;rests&gt;" in shown

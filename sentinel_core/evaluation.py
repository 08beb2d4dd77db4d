"""`sentinel evaluate`: which model suits each watch, found out on its own past."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from sentinel_core.administration import Add, print_table
from sentinel_core.config import SentinelConfig
from sentinel_core.durations import format_duration, parse_duration
from sentinel_core.errors import ConfigError, InvalidError
from sentinel_core.sentinel import find_watch
from sentinel_core.workspace import TEMPLATES

if TYPE_CHECKING:
    from sentinel_core.backtest import Standing
    from sentinel_core.pipeline.reports import BacktestReport

SINCE = "14d"  # the usual Prometheus keeps 15
SCORES = {"mae": "{:.3g}", "mase": "{:.3g}", "bias": "{:+.2g}", "coverage": "{:.0%}"}


def register(add: Add) -> None:
    """Add the command; `add` as in `administration.register`."""
    evaluate = add("evaluate", _evaluate, "Try every model on the watches' own past, and say which one to take.")
    evaluate.add_argument(
        "--watch", action="append", metavar="WATCH", help="its slug, metric or selector; default: all"
    )
    evaluate.add_argument("--since", default=SINCE, metavar="DURATION", help=f"how far back; default: {SINCE}")
    evaluate.add_argument(
        "--output",
        default="evaluation",
        metavar="FOLDER",
        help="gets index.html with tables and plots, and each plot as a PNG; default: evaluation",
    )


def _evaluate(config: SentinelConfig, arguments: argparse.Namespace) -> int:
    from sentinel_core import plots
    from sentinel_core.pipeline import Engine

    try:
        since = parse_duration(arguments.since)
    except ValueError as error:
        raise InvalidError({"--since": str(error)}) from None
    if not config.watches:
        raise ConfigError(["no watch is configured; add one to sentinel.toml"])
    slugs = [find_watch(config, text).slug for text in arguments.watch] if arguments.watch else None
    folder = Path(arguments.output)
    folder.mkdir(parents=True, exist_ok=True)
    reports: list[tuple[BacktestReport, bytes | None]] = []
    with Engine.open(config) as engine:
        for report in engine.backtest(slugs, since_seconds=since, progress=_progress):
            print("\n".join(["", *describe(report)]))
            plot = None if report.problem else plots.backtest_png(report)
            if plot is not None:
                print_table(*table(report), "")
                print(f"  {report.advice.text}" if report.advice else "")
                (folder / f"{report.slug}.png").write_bytes(plot)
            if report.advice is not None and report.advice.model is not None:
                print(f'    model_class = "{report.advice.model}"')
            sys.stdout.flush()
            reports.append((report, plot))
            (folder / "index.html").write_text(page(reports), encoding="utf-8")  # whole at any time
    print(f"\n{folder / 'index.html'} has the plots")
    return 1 if all(report.problem for report, _ in reports) else 0


def describe(report: "BacktestReport") -> Iterator[str]:
    """What was done, a line each."""
    yield f"{report.selector}  (slug {report.slug})"
    if report.problem:
        yield f"  PROBLEM: {report.problem}"
        return
    of = f" of {report.of_series:,}" if report.of_series != report.series else ""
    first, last = (datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M") for at in (report.start, report.end))
    judged = f"{report.trained} trainings, {report.origins} origins"
    yield f"  {report.series:,}{of} series; {judged} from {first} to {last} UTC"
    yield f"  at {' / '.join(_durations(report))} ahead; bounds for {100 * report.level:g}%"


def table(report: "BacktestReport") -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    """Head and rows, a model each; several numbers in a cell are those of the reported leads."""
    places = [report.leads.index(lead) for lead in report.reported]

    def row(one: "Standing") -> list[str]:
        cells = (" / ".join(text.format(one.scores[name][place]) for place in places) for name, text in SCORES.items())
        own = " (yours)" if one.model == report.own else ""
        return [one.model + own, *cells, "-" if one.cpu_ms is None else f"{one.cpu_ms:,.1f}", one.problem or ""]

    rows = [row(one) for one in report.standings]
    head = ["  MODEL", "MAE", "MASE", "BIAS", "INSIDE", "MS CPU", "PROBLEM" if any(one[-1] for one in rows) else ""]
    return head, [[f"  {first}", *others] for first, *others in rows]


def page(reports: "Sequence[tuple[BacktestReport, bytes | None]]") -> str:
    """One HTML file that needs no other: every table, every plot, every recommendation."""
    from base64 import b64encode

    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    found = [
        (report, list(describe(report)), table(report), None if plot is None else b64encode(plot).decode())
        for report, plot in reports
    ]
    return environment.get_template("evaluation.html").render(reports=found)


def _durations(report: "BacktestReport") -> list[str]:
    return [format_duration(lead * report.step_seconds) for lead in report.reported]


def _progress(slug: str, done: int, total: int) -> None:
    """One line that changes, on a terminal."""
    if sys.stderr.isatty():
        end = "\r" if done < total else "\r\033[K"
        print(f"{slug}: {done} of {total} trainings", end=end, file=sys.stderr, flush=True)

"""The façade: `Sentinel(config).start()`, and what one asks of it."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from sentinel_core.config import SentinelConfig, WatchConfig
from sentinel_core.errors import ConfigError, RegistryError, ServiceError
from sentinel_core.series import Matcher, Selector, unescape
from sentinel_core.workspace import applied_path

if TYPE_CHECKING:
    from sentinel_core.pipeline import Engine
    from sentinel_core.pipeline.reports import ActivationReport
    from sentinel_core.supervisor import Supervisor

_MATCHER = re.compile(r"""\s*(\w+)\s*(=~|!~|!=|=)\s*(["'])((?:\\.|(?!\3)[^\\])*)\3\s*(?:,|(?=\}))\s*""", re.DOTALL)


class Sentinel:
    """One store with its watches.

    Everything but `start` works beside a running Sentinel, from any process, and without one.
    """

    def __init__(self, config: SentinelConfig) -> None:
        self.config = config
        self._supervisor: Supervisor | None = None

    def start(self, *, demo: bool = False) -> None:
        """Run Dagster and the sidecar until `stop`, Ctrl-C or SIGTERM; ServiceError where they cannot start.

        Models are handed to the processes by import path, so a class of your own has to live in a module.
        """
        from sentinel_core.supervisor import Supervisor

        self._supervisor = Supervisor(self.config, demo=demo)
        try:
            self._supervisor.run()
        finally:
            self._supervisor = None

    def stop(self) -> None:
        """End what `start` runs in another thread of this process; `start` returns within ten seconds."""
        if self._supervisor is not None:
            self._supervisor.stop()

    def status(self) -> dict[str, dict[str, object]]:
        """Every watch by its canonical selector: ready, active_version, drift_mae, buffer_fill and more."""
        with self._engine() as engine:
            return engine.status()

    def rollback(
        self,
        metric: str | None = None,
        labels: Mapping[str, str] | None = None,
        *,
        watch: str | None = None,
        version: int | str | None = None,
        reason: str = "rolled back by hand",
        say: Callable[[str], None] = print,
    ) -> "ActivationReport":
        """Serve the previous version of a watch, or the one named ("v3"), and hold it until `release`.

        The watch is named by metric and labels as configured (a query by its name), or by its slug. RegistryError where
        there is no such version. A running Dagster is asked to record the change; `say` tells if it could not.
        """
        number = version_number(version)
        chosen = self._choose(metric, labels, watch)
        with self._engine() as engine:
            report = engine.roll_back(chosen.slug, version=number, reason=reason)
        self._record(report, say)
        return report

    def release(
        self,
        metric: str | None = None,
        labels: Mapping[str, str] | None = None,
        *,
        watch: str | None = None,
        reason: str = "released by hand",
        say: Callable[[str], None] = print,
    ) -> "ActivationReport":
        """End a rollback's hold: the next candidate that is not worse serves."""
        chosen = self._choose(metric, labels, watch)
        with self._engine() as engine:
            report = engine.release(chosen.slug, reason=reason)
        self._record(report, say)
        return report

    @contextmanager
    def _engine(self) -> Iterator["Engine"]:
        from sentinel_core.pipeline import Engine  # here: the model libraries take a second to import

        with readable(self.config) as config, Engine.open(config) as engine:
            yield engine

    def _choose(self, metric: str | None, labels: Mapping[str, str] | None, slug: str | None) -> WatchConfig:
        if slug is not None:
            return self.config.watch(slug)
        if metric is None:
            raise ConfigError(["name the watch by metric and labels, or by its slug in watch"])
        return find_watch(self.config, str(Selector.of(metric, labels or {})))

    def _record(self, report: "ActivationReport", say: Callable[[str], None]) -> None:
        """The change is in force; Dagster's `active_models` should tell of it where Dagster runs."""
        from sentinel_core.dagster_api import DagsterApi

        if not applied_path(self.config).exists():  # nobody has ever started it
            return
        try:
            with DagsterApi(self.config.dagster_url) as dagster:
                dagster.record_activation(report.slug, f"{report.action}: {report.reason}")
        except ServiceError as error:
            say(f"It is in force, but not recorded in Dagster: {error}")


@contextmanager
def readable(config: SentinelConfig) -> Iterator[SentinelConfig]:
    """The configuration; with an empty store that goes away again where asking would make the first file of one."""
    from sqlalchemy import make_url

    url = make_url(config.resolved_sql_url)
    if url.get_backend_name() != "sqlite" or Path(url.database or "").exists():
        yield config
        return
    with TemporaryDirectory() as folder:
        yield replace(config, artifact_store=folder, sql_url=None, data_url=None)


def version_number(version: int | str | None) -> int | None:
    """A version as people write it ("v3", "3", 3) as a number; None stays None; RegistryError for anything else.

    >>> version_number("v3")
    3
    """
    if version is None or isinstance(version, int):
        return version
    number = version.strip().removeprefix("v")
    if not number.isdecimal():
        raise RegistryError(f"{version!r} is not a version; write v3, or nothing for the previous one")
    return int(number)


def find_watch(config: SentinelConfig, text: str) -> WatchConfig:
    """The one watch that a selector, a slug or a metric's (or query's) name means; ConfigError lists what there is."""
    wanted = _canonical(text)
    for means in (
        lambda watch: text == watch.slug,
        lambda watch: wanted == watch.selector,
        lambda watch: wanted in (watch.metric, watch.name),
    ):
        found = [watch for watch in config.watches if means(watch)]
        if len(found) == 1:
            return found[0]
        if found:
            slugs = ", ".join(watch.slug for watch in found)
            raise ConfigError([f"{text} means {len(found)} watches; name one by its slug: {slugs}"])
    known = ", ".join(f"{watch.selector} (slug {watch.slug})" for watch in config.watches) or "none"
    raise ConfigError([f"no watch is {text}; configured: {known}"])


def _canonical(text: str) -> str:
    """A selector as typed, with its labels in canonical order; other text as it is."""
    name, brace, inner = text.strip().partition("{")
    if not brace:
        return name
    matchers, place = [], 0
    while found := _MATCHER.match(inner, place):
        matchers.append(Matcher(found[1], found[2], unescape(found[4])))
        place = found.end()
    if inner[place:].strip() != "}":
        raise ConfigError([f'{text} is not a selector; write metric{{label="value"}}, in quotes for the shell'])
    return str(Selector(name.strip(), tuple(sorted(matchers, key=lambda matcher: matcher.label))))

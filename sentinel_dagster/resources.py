"""The engine as a Dagster resource: opened from the applied configuration, anew for every run and evaluation.

A test overrides the resource with a subclass whose `connect` yields a fake.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import dagster as dg

from sentinel_core.config import SentinelConfig, load_config
from sentinel_core.durations import parse_duration
from sentinel_core.errors import ConfigError, SentinelError, TransientSourceError
from sentinel_core.pipeline import Engine

Answer = TypeVar("Answer")

LONGEST_WAIT_SECONDS = 15.0  # a run waits for its newest step to settle; a step later than this is by another clock


class EngineResource(dg.ConfigurableResource):  # type: ignore[type-arg]  # yields itself, not a value
    """Opens the engine; an error of the core ends the run with the core's own words instead of a stack."""

    config_path: str | None = None  # default: SENTINEL_CONFIG, else ./sentinel.toml

    def configuration(self) -> SentinelConfig:
        """Read the applied configuration; raises ConfigError."""
        return load_config(self.config_path)

    @contextmanager
    def connect(self, config: SentinelConfig) -> Iterator[Engine]:
        """Yield the engine; raises SentinelError."""
        with Engine.open(config) as engine:
            yield engine

    @contextmanager
    def open(self, *, settled: int | None = None) -> Iterator[Engine]:
        """Yield the engine, once the grid time `settled` has settled.

        Raises dagster.Failure for every SentinelError; only a source that may answer the next time is worth a retry.
        """
        try:
            config = self.configuration()
            if settled is not None:
                wait = settled + parse_duration(config.settle_delay) - time.time()
                if 0.0 < wait <= LONGEST_WAIT_SECONDS:
                    time.sleep(wait)
            with self.connect(config) as engine:
                yield engine
        except SentinelError as error:
            raise dg.Failure(str(error), allow_retries=isinstance(error, TransientSourceError)) from error

    @contextmanager
    def open_in_background(self) -> Iterator[Engine]:
        """The same, after giving way to every tick: for work that may take minutes."""
        self.give_way()
        with self.open() as engine:
            yield engine

    def give_way(self) -> None:
        """Lower the priority of this process, which is the run's own."""
        os.nice(10)


def ask(
    resource: EngineResource, question: Callable[[Engine], Answer], *, about_watches: bool = True
) -> Answer | dg.SkipReason:
    """Put a question to the engine on behalf of a schedule or sensor; says why where there is nothing to ask about.

    about_watches: whether it is about watches: where none is configured the store is not even opened
    """
    try:
        if not resource.configuration().watches and about_watches:
            return dg.SkipReason("no watch is configured; add one to sentinel.toml")
    except ConfigError as error:
        return dg.SkipReason(f"the configuration cannot be read: {error}")
    with resource.open() as engine:
        return question(engine)

"""Calls of a person's model in processes that can be killed.

Nothing a person's code does may stop a tick. A thread cannot be killed, and a fork of a process with threads may hang
by itself; so every call goes to one of joblib's loky workers, predictions too. That costs about a second for starting
them in a fresh process and 0.7 ms per task afterwards.
"""

import importlib
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from joblib.externals.loky import get_reusable_executor, wait

from sentinel_core import features
from sentinel_core.models.base import BaseModel, ModelSpec
from sentinel_core.windows import FloatArray, Window

START_SECONDS = 60.0  # for a worker to start and import the model's module, with all that this imports
IDLE_SECONDS = 60  # a worker without work ends after this
TASK_SECONDS = 1.0  # a task returns what it has after this; so one that is overdue by a call's time hangs
SERIES_PER_TASK = 64
MOST_HANGS = 3  # in one run; what has not been asked by then is given up, or the run would never end
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


@dataclass(frozen=True)
class Spec:
    """How a worker constructs the model: "package.module:Class", (granularity, horizon, lookback), model_params."""

    path: str
    grid: tuple[str, str, str]
    model_params: dict[str, Any]


@dataclass(frozen=True)
class Call:
    """One method of one series' model, on the state that its `save` left (b"" for none).

    window: that series without gaps; "fit" and "partial_fit" get every row of it, "predict" the newest
    """

    method: str
    state: bytes
    window: Window


@dataclass(frozen=True)
class Failure:
    """What went wrong with one call, and the remedy."""

    message: str


Outcome = bytes | FloatArray | Failure  # the new state, the forecast [horizon_steps], or what went wrong


def run(spec: Spec, calls: Sequence[Call], timeout_seconds: float) -> list[Outcome]:
    """The outcome of each call, in order; a call that hangs, dies or raises is a Failure and stops no other.

    Waits for START_SECONDS and MOST_HANGS times the timeout at most, beyond the time of the calls that do return.
    """
    return _Run(spec, calls, timeout_seconds).outcomes() if calls else []


class _Run:
    """The calls of one run. Series are asked many to a task; those of a task that hung or died, one after the other."""

    def __init__(self, spec: Spec, calls: Sequence[Call], timeout_seconds: float) -> None:
        self.spec, self.calls, self.timeout = spec, calls, timeout_seconds
        self.found: dict[int, Outcome] = {}
        self.width = min(joblib.cpu_count(), len(calls))
        size = min(SERIES_PER_TASK, -(-len(calls) // self.width))
        self.waiting = deque(list(range(k, min(k + size, len(calls)))) for k in range(0, len(calls), size))
        self.suspects: deque[list[int]] = deque()
        self.flying: dict[Any, tuple[list[int], float]] = {}
        self.hangs = 0
        self.pool = self._pool()

    def outcomes(self) -> list[Outcome]:
        problem = self._start()
        while problem is None and (self.waiting or self.suspects or self.flying):
            self._submit()
            if self._collect():
                continue
            self._kill()
            if self.hangs >= MOST_HANGS:
                problem = f"not asked any more after {self.hangs} hangs of {self.timeout:g} s; {_SLOW}"
            else:
                problem = self._start()
        return [self.found.get(k, Failure(problem or "")) for k in range(len(self.calls))]

    def _pool(self) -> Any:
        """joblib's own workers of this process, or new ones where those have been killed or died."""
        return get_reusable_executor(max_workers=self.width, timeout=IDLE_SECONDS, env=ONE_THREAD)

    def _start(self) -> str | None:
        """Start the workers and import the class, apart from the calls' own time; what went wrong, if anything did."""
        future = self.pool.submit(_importable, self.spec.path)
        wait([future], timeout=START_SECONDS)
        if not future.done():
            self._kill()
            return f"importing {self.spec.path} took more than {START_SECONDS:g} s"
        if future.exception() is not None:
            self._kill()
            return f"importing {self.spec.path} ended its process: {future.exception()}"
        return future.result()  # type: ignore[no-any-return]

    def _submit(self) -> None:
        """Give each worker a task; suspects fly alone, so that a crash is theirs."""
        while self.waiting and len(self.flying) < self.width:
            self._fly(self.waiting.popleft())
        if not self.flying and self.suspects:
            self._fly(self.suspects.popleft())

    def _fly(self, task: list[int]) -> None:
        future = self.pool.submit(_perform, self.spec, [self.calls[k] for k in task])
        self.flying[future] = task, time.monotonic() + self.timeout + TASK_SECONDS

    def _collect(self) -> bool:
        """Take in what is done; False after a hang or a crash, whose tasks are to be asked again one by one."""
        patience = min(deadline for _, deadline in self.flying.values()) - time.monotonic()
        wait(list(self.flying), timeout=max(0.0, patience), return_when="FIRST_COMPLETED")
        now = time.monotonic()
        died = False
        for future, (task, _) in list(self.flying.items()):
            if not future.done():
                continue
            if future.exception() is not None:
                died = True
                continue
            del self.flying[future]
            answers = future.result()
            self.found.update(zip(task, answers, strict=False))
            if len(answers) < len(task):
                self.waiting.append(task[len(answers) :])
        overdue = [task for task, deadline in self.flying.values() if deadline <= now]
        if not (died or overdue):
            return True
        self.hangs += bool(overdue)
        alone = len(self.flying) == 1
        for task, _ in self.flying.values():
            if len(task) == 1 and task in overdue:
                self.found[task[0]] = Failure(f"did not return within {self.timeout:g} s; {_SLOW}")
            elif len(task) == 1 and alone:
                self.found[task[0]] = Failure("ended its process (it exited, crashed or ran out of memory)")
            else:
                self.suspects.extend([k] for k in task)
        self.flying = {}
        return False

    def _kill(self) -> None:
        self.pool.shutdown(wait=True, kill_workers=True)
        self.pool = self._pool()


_SLOW = "make the model faster, or raise the watch's model_timeout (predict has a quarter of a step at most)"


# ---- in the worker
def _importable(path: str) -> str | None:
    try:
        _class(path)
    except BaseException as error:  # a module may do anything while it is imported, SystemExit included
        return f"importing {path} raised {type(error).__name__}: {error}"
    return None


def _class(path: str) -> type[BaseModel]:
    module, _, name = path.partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found  # type: ignore[no-any-return]


def _perform(spec: Spec, calls: Sequence[Call]) -> list[Outcome]:
    """The outcomes of the first calls: as many as fit into TASK_SECONDS, and at least one."""
    until = time.monotonic() + TASK_SECONDS
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="sentinel-model-") as folder:
        for call in calls:
            outcomes.append(_outcome(spec, call, Path(folder, f"{len(outcomes)}.model")))
            if time.monotonic() > until:
                break
    return outcomes


def _outcome(spec: Spec, call: Call, file: Path) -> Outcome:
    doing = "its constructor"
    try:
        model = _class(spec.path)(*spec.grid, **spec.model_params)
        lookback, horizon = (getattr(ModelSpec(*spec.grid), name) for name in ("lookback_steps", "horizon_steps"))
        if call.state:
            doing = "load"
            file.write_bytes(call.state)
            model.load(str(file))
            file.unlink()
        doing = call.method
        if call.method == "predict":
            return _forecast(model.predict(features.newest_row(call.window, lookback)), horizon)
        rows = features.build(call.window, lookback)
        (model.fit if call.method == "fit" else model.partial_fit)(rows.X[0], rows.y[0])
        doing = "save"
        model.save(str(file))
        if not file.is_file() or not file.stat().st_size:
            return Failure("save wrote nothing to its path; write to exactly that file (numpy's savez appends .npz)")
        return file.read_bytes()
    except BaseException as error:  # whatever it is, the next series must have its turn
        return Failure(f"{doing} raised {type(error).__name__}: {error}")


def _forecast(result: Any, horizon_steps: int) -> Outcome:
    values = np.asarray(getattr(result, "values", result), np.float64)
    if values.shape != (horizon_steps,):
        return Failure(f"predict returned values of shape {values.shape}; the horizon has {horizon_steps} steps")
    if not np.isfinite(values).all():
        lead = int(np.argmin(np.isfinite(values))) + 1
        return Failure(f"predict returned {values[lead - 1]} at lead {lead}; return finite values")
    return values

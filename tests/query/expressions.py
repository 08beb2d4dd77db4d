"""Expressions drawn at random over the series of `shop`, and those series: what two engines should agree on.

They keep clear of what Prometheus 3 changed; that is tested by itself. No sample stands on a whole second, and no range
of a subquery is a multiple of its step, so that it does not matter whether ranges are open or closed on the left. Names
of metrics matter for nothing between operations. Counters start long before they are asked for. @ is neither nested nor
an argument of functions that know the time.
"""

import math
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np

from sentinel_core.promql.values import Labels, Samples
from sentinel_core.series import format_selector
from tests.prometheus_server import History

START, END = 1_700_000_000, 1_700_025_200  # seven hours, unix seconds
INSTANCES = ("a", "b", "c")
GAUGES = ("temperature", "capacity", "flappy", "odd")
LABELS = {
    "temperature": ("instance", "job", "zone"),
    "capacity": ("instance", "job"),
    "flappy": ("instance", "job"),
    "odd": ("job", "kind"),
    "requests_total": ("code", "instance", "job"),
}
VALUES = {
    "instance": INSTANCES,
    "job": ("api", "web"),
    "zone": ("north", "south"),
    "code": ("200", "500"),
    "kind": ("nan", "inf", "small"),
}
LE = ("0.1", "0.5", "1", "+Inf")


def samples(seed: int = 1) -> Samples:
    """Every series: gauges, counters that restart, gaps, NaN and infinities, and a histogram."""
    rng = np.random.default_rng(seed)
    labels: list[Labels] = []
    times: list[np.ndarray[tuple[int], np.dtype[np.int64]]] = []
    values: list[np.ndarray[tuple[int], np.dtype[np.float64]]] = []

    def add(name: str, every: int, value: Callable[[int], object], **more: str) -> None:
        stamps = np.arange(
            START * 1_000 + 1_007 * (len(labels) % 9 + 1) // 1_000 * 1_000 + 7, END * 1_000, every * 1_000
        )
        if name == "flappy":
            stamps = stamps[(stamps // 900_000 + len(labels)) % 2 == 0]
        labels.append(tuple(sorted({"__name__": name, **more}.items())))
        times.append(stamps)
        values.append(np.asarray(value(len(stamps)), np.float64))

    def counter(rate: float) -> Callable[[int], object]:
        period = int(rng.integers(100, 200))

        def value(n: int) -> object:
            gained = rng.poisson(rate, n).astype(np.float64)
            total = np.cumsum(gained)
            return total - np.maximum.accumulate(np.where(np.arange(n) % period == 0, total, 0))

        return value

    for i, instance in enumerate(INSTANCES):
        job = "web" if instance == "c" else "api"
        for zone in VALUES["zone"]:
            add(
                "temperature",
                15,
                lambda n: 20 + np.cumsum(rng.normal(0, 0.5, n)),
                instance=instance,
                job=job,
                zone=zone,
            )
        for code, rate in (("200", 40.0), ("500", 0.5)):
            add("requests_total", 15, counter(rate), instance=instance, job=job, code=code)
        add(
            "capacity",
            60,
            lambda n, i=i: np.full(n, 100.0 * (i + 1)) + rng.integers(0, 3, n),
            instance=instance,
            job=job,
        )
        add("flappy", 30, lambda n: rng.integers(-5, 6, n), instance=instance, job=job)
        buckets = np.cumsum(rng.poisson(3.0, (len(LE), (END - START) // 15 + 1)).cumsum(axis=1), axis=0)
        for row, le in zip(buckets, LE, strict=True):
            add("latency_bucket", 15, lambda n, row=row: row[:n], instance=instance, job=job, le=le)
    add("odd", 60, lambda n: np.where(rng.random(n) < 0.3, math.nan, rng.normal(0, 1, n)), job="api", kind="nan")
    add("odd", 60, lambda n: np.where(rng.random(n) < 0.3, -math.inf, 1.0), job="api", kind="inf")
    add("odd", 60, lambda n: rng.normal(0, 1e-9, n), job="web", kind="small")
    return Samples.of(labels, times, values)


class Written(History):
    """The same series for a real Prometheus."""

    def write(self, path: Path) -> None:
        """Write OpenMetrics, a family together."""
        found, family = samples(), ""
        order = sorted(range(len(found.labels)), key=lambda i: found.labels[i])
        with path.open("w") as file:
            for i in order:
                name = found.labels[i][0][1]
                kind = "counter" if name.endswith("_total") else "unknown"
                if name != family:
                    file.write(f"# TYPE {name.removesuffix('_total')} {kind}\n")
                    family = name
                selector = format_selector(name, found.labels[i][1:])
                of = slice(found.offsets[i], found.offsets[i + 1])
                for time, value in zip(found.times[of].tolist(), found.values[of].tolist(), strict=True):
                    text = {math.inf: "+Inf", -math.inf: "-Inf"}.get(value, "NaN" if math.isnan(value) else repr(value))
                    file.write(f"{selector} {text} {time / 1_000:.3f}\n")
            file.write("# EOF\n")


class Expressions:
    """Draws one after the other; the same seed draws the same ones."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)

    def draw(self) -> str:
        """Return an expression, a vector mostly."""
        return self.scalar(2) if self._rng.random() < 0.04 else self.vector(self._rng.choice((1, 2, 2, 3)))

    def vector(self, depth: int) -> str:
        """Return a vector that nests up to so deep."""
        if depth <= 0:
            return self.selector(self._pick(*GAUGES[:3], *LABELS))
        kinds = {
            self._over_time: 6,
            self._aggregation: 5,
            self._with_scalar: 3,
            self._paired: 4,
            self._grouped: 2,
            self._set: 3,
            self._function: 4,
            self._subquery: 3,
            self._histogram: 1,
            self._relabelled: 1,
            self._absent: 1,
            self._counted: 1,
            self._timestamp: 1,
        }
        (kind,) = self._rng.choices(list(kinds), list(kinds.values()))
        return kind(depth)

    def scalar(self, depth: int) -> str:
        """Return a scalar."""
        number = self._pick("0", "1", "2", "-3.5", "1e3", "20", "0.1", "NaN", "Inf")
        if depth <= 0 or self._rng.random() < 0.6:
            return number
        return self._pick(
            "time()",
            "pi()",
            f"scalar({self.vector(depth - 1)})",
            f"({self.scalar(depth - 1)} {self._arithmetic()} {self.scalar(depth - 1)})",
            f"({self.scalar(depth - 1)} {self._comparison()} bool {self.scalar(depth - 1)})",
        )

    def selector(self, name: str, span: str = "") -> str:
        """Return a selector, with a range where one is given."""
        conditions = []
        for label in LABELS.get(name, ()):
            if self._rng.random() < 0.2:
                value, other = self._pick(*VALUES[label]), self._pick(*VALUES[label])
                conditions.append(
                    self._pick(
                        f'{label}="{value}"',
                        f'{label}!="{value}"',
                        f'{label}=~"{value}|{other}"',
                        f'{label}!~"{value}.*"',
                    )
                )
        text = f"{name}{{{','.join(conditions)}}}{span}" if conditions else f"{name}{span}"
        if self._rng.random() < 0.15:
            text += f" offset {self._pick('1m', '7m', '-3m', '1h')}"
        if self._rng.random() < 0.1:
            text += f" @ {self._pick(str(END - 1_800), str(END - 5_000), 'start()', 'end()')}"
        return text

    def _pick(self, *choices: str) -> str:
        return self._rng.choice(choices)

    def _arithmetic(self) -> str:
        return self._pick("+", "-", "*", "/", "%", "^", "atan2")

    def _comparison(self) -> str:
        return self._pick("==", "!=", ">", "<", ">=", "<=")

    def _clause(self) -> str:
        labels = self._rng.sample(("instance", "job", "zone", "code", "kind", "nothing"), self._rng.randint(0, 2))
        return self._pick("", f"by ({', '.join(labels)})", f"without ({', '.join(labels)})")

    def _matching(self) -> str:
        labels = self._rng.sample(("instance", "job", "zone", "code"), self._rng.randint(1, 2))
        return self._pick("", f"on ({', '.join(labels)})", f"ignoring ({', '.join(labels)})")

    def _over_time(self, depth: int) -> str:
        span = f"[{self._pick('1m', '5m', '10m', '47s', '1h')}]"
        if self._rng.random() < 0.4:
            counting = self._pick("rate", "increase", "irate", "resets", "changes")
            return f"{counting}({self.selector('requests_total', span)})"
        return self._reduced(self.selector(self._pick(*GAUGES), span))

    def _reduced(self, matrix: str) -> str:
        function = self._pick(
            *(
                f"{one}_over_time"
                for one in ("avg", "min", "max", "sum", "count", "last", "stddev", "stdvar", "present")
            ),
            *(
                "quantile_over_time",
                "delta",
                "idelta",
                "deriv",
                "predict_linear",
                "changes",
                "resets",
                "double_exponential_smoothing",
            ),
        )
        if function == "double_exponential_smoothing":
            return f"double_exponential_smoothing({matrix}, {self._pick('0.1', '0.9')}, {self._pick('0.2', '0.8')})"
        if function == "quantile_over_time":
            return f"quantile_over_time({self._pick('0', '0.3', '0.5', '0.99', '1', '1.2', '-1')}, {matrix})"
        if function == "predict_linear" and "@" in matrix:
            return f"deriv({matrix})"
        if function == "predict_linear":
            return f"predict_linear({matrix}, {self._pick('600', '-60', '0', '86400')})"
        return f"{function}({matrix})"

    def _aggregation(self, depth: int) -> str:
        clause, inner = self._clause(), self.vector(depth - 1)
        operator = self._pick(
            "sum", "avg", "min", "max", "count", "stddev", "stdvar", "group", "topk", "bottomk", "quantile"
        )
        param = {"topk": ("1", "2", "5"), "bottomk": ("1", "3"), "quantile": ("0", "0.25", "0.9", "2")}.get(operator)
        return f"{operator} {clause} ({f'{self._pick(*param)}, ' if param else ''}{inner})"

    def _with_scalar(self, depth: int) -> str:
        sides = [self.vector(depth - 1), self.scalar(1)]
        self._rng.shuffle(sides)
        operator = self._arithmetic() if self._rng.random() < 0.5 else self._comparison() + self._pick("", " bool")
        return f"({sides[0]}) {operator} ({sides[1]})"

    def _paired(self, depth: int) -> str:
        """Two vectors that pair one to one, or do not at all."""
        operator = self._arithmetic() if self._rng.random() < 0.5 else self._comparison() + self._pick("", " bool")
        if self._rng.random() < 0.4:
            return f"({self.vector(depth - 1)}) {operator} {self._matching()} ({self.vector(depth - 1)})"
        name = self._pick("temperature", "capacity", "flappy")
        labels = self._pick("instance", "instance, job", "job")
        left, right = (f"{self._pick('sum', 'max')} by ({labels}) ({self.selector(one)})" for one in (name, "capacity"))
        return f"{left} {operator} {self._pick('', f'on ({labels})', 'ignoring (zone)')} {right}"

    def _grouped(self, depth: int) -> str:
        """Many to one."""
        many, one = self.selector(self._pick("temperature", "requests_total")), self.selector("capacity")
        operator = self._arithmetic() if self._rng.random() < 0.6 else self._comparison() + self._pick("", " bool")
        matching = self._pick("on (instance)", "on (instance, job)", "ignoring (zone, code)")
        include = self._pick("()", "", "(job)", "(nothing)")
        if self._rng.random() < 0.5:
            return f"{many} {operator} {matching} group_left {include} {one}"
        return f"{one} {operator} {matching} group_right {include} {many}"

    def _set(self, depth: int) -> str:
        operator = self._pick("and", "or", "unless")
        return f"({self.vector(depth - 1)}) {operator} {self._matching()} ({self.vector(depth - 1)})"

    def _function(self, depth: int) -> str:
        inner = self.vector(depth - 1)
        plain = (
            "abs",
            "ceil",
            "floor",
            "exp",
            "ln",
            "log2",
            "log10",
            "sqrt",
            "sgn",
            "sin",
            "cos",
            "tan",
            "atan",
            "tanh",
        )
        dated = ("hour", "minute", "day_of_week", "day_of_month", "day_of_year", "days_in_month", "month", "year")
        choices = [f"{self._pick(*plain)}({inner})", f"round({inner}, {self._pick('0.5', '10', '3')})", f"-({inner})"]
        choices += [f"clamp({inner}, {self._pick('-1', '5')}, {self._pick('0', '30')})", f"clamp_min({inner}, 20)"]
        choices += [f"clamp_max({inner}, 20)", f"round({inner})", f"sort({inner})", f"{self._pick(*dated)}({inner})"]
        choices += [f"vector({self.scalar(depth - 1)})", f"rad({inner})", f"deg({inner})"]
        return self._pick(*choices)

    def _subquery(self, depth: int) -> str:
        span, step = self._pick("5m1s", "10m1s", "31m1s"), self._pick("1m", "30s", "", "7m")
        inner = self.vector(depth - 1)
        at = "" if "@" in inner else f" @ {END - 600}"
        return self._reduced(f"({inner})[{span}:{step}]{self._pick('', '', ' offset 5m', at)}")

    def _histogram(self, depth: int) -> str:
        quantile = self._pick("0.5", "0.9", "0.99", "0", "1", "-1", "2")
        rate = f"rate({self.selector('latency_bucket', '[5m]')})"
        return (
            f"histogram_quantile({quantile}, {self._pick(rate, f'sum by (le) ({rate})', f'sum by (le, job) ({rate})')})"
        )

    def _relabelled(self, depth: int) -> str:
        inner = self.vector(depth - 1)
        return self._pick(
            f'label_replace({inner}, "host", "$1-x", "instance", "([ab])")',
            f'label_replace({inner}, "kind", "", "kind", ".*")',
            f'label_replace({inner}, "job", "${{letter}}$2", "job", "(?P<letter>.)(..)")',
            f'label_join({inner}, "both", "/", "instance", "job")',
        )

    def _counted(self, depth: int) -> str:
        return f'count_values {self._clause()} ("value", {self.selector("flappy")})'

    def _absent(self, depth: int) -> str:
        return self._pick(
            f"absent({self.vector(depth - 1)})",
            f"absent_over_time({self.selector('flappy', '[3m]')})",
            'absent(nothing{job="x", code=~"y"})',
            'absent(nothing{job="x", job="y", zone!="z"})',
        )

    def _timestamp(self, depth: int) -> str:
        return f"timestamp({self.selector(self._pick(*GAUGES)).partition(' @')[0]})"

"""What one query may cost: bytes of text, nodes, points, cells of every array it makes, and time."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from sentinel_core.promql.errors import ExecutionError, QueryTimeoutError

MAX_BYTES = 8 * 1024  # of text
MAX_DEPTH = 100  # deeper nesting would overflow the parser's stack at 10,000
MAX_OPERATORS = 400  # longer chains would hold the interpreter: 4,000 terms for 7.8 s, 400 for 0.03 s
MAX_EXPRESSIONS = 100  # of matchers: re2 may take 12 ms to compile one
MAX_POINTS = 11_000  # steps of a range query, as Prometheus


@dataclass
class Budget:
    """What a query may still use; whoever makes a large array spends it, whoever loops looks at the clock.

    cells:    samples and values, of all arrays made so far together
    deadline: by `clock`, seconds
    """

    cells: int = 50_000_000
    deadline: float = float("inf")
    clock: Callable[[], float] = time.monotonic
    spent: int = field(default=0, init=False)

    def spend(self, cells: int) -> None:
        """Account for an array before it is made; ExecutionError where that is too much, QueryTimeoutError too late."""
        self.spent += cells
        if self.spent > self.cells:
            raise ExecutionError(
                f"query processing would load too many samples: more than {self.cells:,}; "
                "ask for fewer series, a shorter time or a longer step"
            )
        self.check()

    def check(self) -> None:
        """QueryTimeoutError once the time is up."""
        if self.clock() > self.deadline:
            raise QueryTimeoutError("query timed out; ask for fewer series or a shorter time, or raise query_timeout")

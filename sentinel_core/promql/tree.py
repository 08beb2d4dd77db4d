"""The tree of an expression: what `parse` makes of a text, and what is evaluated. Times and spans are milliseconds.

Parentheses are gone; every node knows its type. Names of functions, aggregations and operators are lower case.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from sentinel_core.series import Matcher

Type = Literal["scalar", "vector", "matrix", "string"]
At = int | Literal["start", "end"] | None  # the @ modifier: milliseconds, @ start(), @ end(), or none


@dataclass(frozen=True)
class Number:
    """A literal, e.g. `1`, `Inf`, or the duration `5m` in seconds."""

    value: float
    type: ClassVar[Type] = "scalar"


@dataclass(frozen=True)
class String:
    """A literal text, unescaped."""

    value: str
    type: ClassVar[Type] = "string"


@dataclass(frozen=True)
class VectorSelector:
    """`name{matchers} offset 5m @ 1`; the name is a matcher on `__name__`. A positive offset looks back."""

    matchers: tuple[Matcher, ...]
    offset: int = 0
    at: At = None
    type: ClassVar[Type] = "vector"

    @property
    def name(self) -> str | None:
        """The name it asks for by equality, if it does."""
        return next((one.value for one in self.matchers if (one.label, one.operator) == ("__name__", "=")), None)


@dataclass(frozen=True)
class MatrixSelector:
    """`selector[5m]`; offset and @ are the selector's."""

    selector: VectorSelector
    range: int
    type: ClassVar[Type] = "matrix"


@dataclass(frozen=True)
class Subquery:
    """`expr[1h:5m] offset 5m @ 1`; without a step the default of whoever evaluates."""

    expr: "Node"
    range: int
    step: int | None = None
    offset: int = 0
    at: At = None
    type: ClassVar[Type] = "matrix"


@dataclass(frozen=True)
class Negation:
    """`-expr`, of a scalar or a vector; a unary plus leaves no node."""

    expr: "Node"

    @property
    def type(self) -> Type:
        """That of what is negated."""
        return self.expr.type


@dataclass(frozen=True)
class Call:
    """`function(args…)`, arguments checked by the parser; optional ones may be missing."""

    function: str
    args: tuple["Node", ...]
    type: Type
    positions: tuple[str, ...] = field(
        default=(), compare=False, repr=False
    )  # "line:column" of its name and of each argument


@dataclass(frozen=True)
class Aggregation:
    """`operator by|without (labels) (param, expr)`; without a clause `without` is False and `labels` is empty."""

    operator: str
    expr: "Node"
    param: "Node | None" = None
    labels: tuple[str, ...] = ()
    without: bool = False
    positions: tuple[str, ...] = field(default=(), compare=False, repr=False)  # likewise
    type: ClassVar[Type] = "vector"


@dataclass(frozen=True)
class Matching:
    """How two vectors are paired: `on (labels)` or `ignoring (labels)`, and which side may have many."""

    labels: tuple[str, ...] = ()
    on: bool = False
    group: Literal["none", "left", "right"] = "none"
    include: tuple[str, ...] = ()  # labels that group_left or group_right copies from the one side


@dataclass(frozen=True)
class Binary:
    """`left operator right`: arithmetic, comparison (`keep` drops, `bool` gives 0 or 1), or and / or / unless."""

    operator: str
    left: "Node"
    right: "Node"
    bool: bool = False
    matching: Matching = Matching()

    @property
    def type(self) -> Type:
        """Scalar where both sides are."""
        return "scalar" if self.left.type == self.right.type == "scalar" else "vector"


Node = Number | String | VectorSelector | MatrixSelector | Subquery | Negation | Call | Aggregation | Binary

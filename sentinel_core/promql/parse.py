"""Text -> tree."""

from sentinel_core.promql.tree import Node
from sentinel_core.series import Matcher


def parse(text: str) -> Node:
    """Return the tree of an expression; BadQueryError ("parse error: …"), or NotSupportedError for what we lack."""
    raise NotImplementedError


def parse_selector(text: str) -> tuple[Matcher, ...]:
    """Return the matchers of a `match[]`: a selector without range, offset or @; errors as of `parse`."""
    raise NotImplementedError


def format_query(text: str) -> str:
    """Return the expression in its usual form; errors as of `parse`."""
    raise NotImplementedError

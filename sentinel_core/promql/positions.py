"""Where in a text the arguments of functions and aggregations begin, as warnings say: the parser does not tell."""

from sentinel_core.promql.guard import TOKEN

_CLAUSES = frozenset({"by", "without"})  # before an aggregation's arguments or after them
_NO_CALLS = _CLAUSES | frozenset(
    {"on", "ignoring", "group_left", "group_right", "and", "or", "unless", "atan2", "bool", "offset"}
)


def of_arguments(text: str) -> list[tuple[str, ...]]:
    """Return "line:column" of each argument of each function and aggregation, these in the order of their names.

    >>> of_arguments('quantile by (job) (2, rate(x[5m]))')
    [('1:20', '1:23'), ('1:28',)]
    """
    calls: list[list[int]] = []
    opened: list[list[int] | None] = []  # the arguments of each open bracket, if it has any
    before = earlier = ""  # the last two tokens, in lower case
    pending = False  # a clause stands between an aggregation's name and its arguments
    begins: list[int] | None = None  # what the next token is an argument of
    for token in TOKEN.finditer(text):
        if token.lastgroup == "blank":
            continue
        word = token[0].lower()
        if begins is not None and word != ")":
            begins.append(token.start())
        begins = None
        if token.lastgroup == "open":
            is_word = before[:1].isalpha() or before[:1] in ("_", ":")
            called = word == "(" and (
                (is_word and before not in _NO_CALLS and earlier != "@") or (before == ")" and pending)
            )
            if called:
                calls.append([])
                begins, pending = calls[-1], False
            opened.append(begins)
        elif token.lastgroup == "close":
            del opened[-1:]
        elif word == "," and opened:
            begins = opened[-1]
        elif word in _CLAUSES and (before[:1].isalpha() or before[:1] == "_"):
            pending = True
        earlier, before = before, word
    return [tuple(_shown(text, start) for start in call) for call in calls]


def _shown(text: str, start: int) -> str:
    lines = text[:start].split("\n")
    return f"{len(lines)}:{len(lines[-1].encode()) + 1}"

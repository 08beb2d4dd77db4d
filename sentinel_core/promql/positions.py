"""Where in a text functions, aggregations and their arguments begin, as warnings say: the parser does not tell."""

from sentinel_core.promql.guard import TOKEN

_CLAUSES = frozenset({"by", "without"})  # before an aggregation's arguments or after them
_NO_CALLS = _CLAUSES | frozenset(
    {"on", "ignoring", "group_left", "group_right", "and", "or", "unless", "atan2", "bool", "offset"}
)


def of_calls(text: str) -> list[tuple[str, ...]]:
    """Return "line:column" of each function and aggregation and of its arguments, in the order of their names.

    >>> of_calls('quantile by (job) (2, rate(x[5m]))')
    [('1:1', '1:20', '1:23'), ('1:23', '1:28')]
    """
    calls: list[list[int]] = []
    opened: list[list[int] | None] = []  # what each open bracket is of, if it has arguments
    before = earlier = ""  # the last two tokens, in lower case
    start = 0  # of the last one
    pending: int | None = None  # where the name is, while a clause stands between it and the arguments
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
            if word == "(" and before == ")" and pending is not None:
                calls.append([pending])
                begins, pending = calls[-1], None
            elif word == "(" and is_word and before not in _NO_CALLS and earlier != "@":
                calls.append([start])
                begins = calls[-1]
            opened.append(begins)
        elif token.lastgroup == "close":
            del opened[-1:]
        elif word == "," and opened:
            begins = opened[-1]
        elif word in _CLAUSES and (before[:1].isalpha() or before[:1] == "_"):
            pending = start
        earlier, before, start = before, word, token.start()
    return [tuple(_shown(text, start) for start in call) for call in calls]


def _shown(text: str, start: int) -> str:
    lines = text[:start].split("\n")
    return f"{len(lines)}:{len(lines[-1].encode()) + 1}"

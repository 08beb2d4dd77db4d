"""What is checked of a text before the parser sees it: the parser trusts its input, and a deep one ends the process."""


def check(text: str) -> None:
    """BadQueryError ("parse error: …") where a text is too long, too deep, has too many operators or open quotes."""
    raise NotImplementedError

"""Grafana's template variables, filled from the API as its datasource fills them."""

import re
from typing import Any

import httpx


def fill(base: str, board: dict[str, Any], span: tuple[int, int]) -> dict[str, str]:
    """What each variable of a dashboard would be when it is opened: the first choice, or all of them."""
    chosen: dict[str, str] = {"datasource": "sentinel"}
    for one in board["templating"]["list"]:
        if one["type"] != "query":
            continue
        if one.get("includeAll"):
            chosen[one["name"]] = one["allValue"]
            continue
        found = choices(base, replaced(one["query"]["query"], chosen), span)
        if one["regex"]:
            pattern = re.compile(one["regex"].strip("/"))
            found = [match[1] if match.groups() else match[0] for text in found if (match := pattern.search(text))]
        assert found, f"nothing to choose for {one['name']} of {board['title']}"
        chosen[one["name"]] = sorted(found)[0]
    return chosen


def choices(base: str, query: str, span: tuple[int, int]) -> list[str]:
    """`label_names(selector)` and `label_values(selector, label)`."""
    times = {"start": str(span[0]), "end": str(span[1])}
    if found := re.fullmatch(r"label_names\((.*)\)", query):
        answer = httpx.get(f"{base}/api/v1/labels", params={**times, "match[]": found[1]}, trust_env=False)
    else:
        found = re.fullmatch(r"label_values\((.*), (\w+)\)", query)
        assert found, query
        answer = httpx.get(
            f"{base}/api/v1/label/{found[2]}/values", params={**times, "match[]": found[1]}, trust_env=False
        )
    assert answer.status_code == 200, answer.text
    names: list[str] = answer.json()["data"]
    return names


def replaced(text: str, chosen: dict[str, str]) -> str:
    """A text with the variables in it, written as $name or ${name}."""
    return re.sub(r"\$\{(\w+)\}|\$(\w+)", lambda match: chosen[match[1] or match[2]], text)

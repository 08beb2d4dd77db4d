"""The queries of a dashboard, as Grafana would find them."""

from typing import Any


def expressions(board: dict[str, Any]) -> list[tuple[dict[str, Any], str]]:
    """Every (panel, expression), variables not replaced yet."""
    return [(panel, target["expr"]) for panel in board["panels"] for target in panel.get("targets", [])]

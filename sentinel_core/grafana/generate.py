"""Write what is shipped: `python -m sentinel_core.grafana.generate`; with `--check`, say whether it is up to date.

Grafana's SDK and a YAML writer are needed for this alone, so the files are committed and the two are for developers.
"""

import json
import sys
from collections.abc import Iterator
from typing import Any

import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from sentinel_core.config import SentinelConfig
from sentinel_core.grafana import rules
from sentinel_core.grafana.dashboards import DASHBOARDS
from sentinel_core.grafana.files import FOLDER
from sentinel_core.grafana.provisioning import EXAMPLE_FOLDER, texts

_HEAD = "# Written by `python -m sentinel_core.grafana.generate`.\n"


def files() -> Iterator[tuple[str, str]]:
    """Every generated file: its path below FOLDER, and its text."""
    for make in DASHBOARDS:
        board = make().build()
        yield f"dashboards/{board.uid}.json", json.dumps(board, cls=JSONEncoder, indent=1, sort_keys=True) + "\n"
    default = SentinelConfig()
    yield from texts(url=default.sidecar_url, interval="15s", folder=EXAMPLE_FOLDER, with_key=False).items()
    yield "rules/forecasts.yaml", _yaml({"groups": rules.FORECASTS})
    yield "rules/quality.yaml", _yaml({"groups": rules.QUALITY})
    yield "rules/sentinel.yaml", _yaml({"groups": rules.SELF})


def _yaml(content: Any) -> str:
    return _HEAD + yaml.safe_dump(content, sort_keys=False, width=120)


def main() -> int:
    """Write, or compare; 1 where a committed file is not what would be written."""
    stale = []
    for name, text in files():
        path = FOLDER / name
        if "--check" in sys.argv:
            if not path.exists() or path.read_text() != text:
                stale.append(name)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    if stale:
        print("not up to date, run `python -m sentinel_core.grafana.generate`:", *stale, file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())

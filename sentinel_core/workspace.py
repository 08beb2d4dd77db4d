"""The files that the child processes read: the applied configuration, and Dagster's instance and workspace.

<artifact_store>/config.json             the applied configuration (SENTINEL_CONFIG of every child)
<artifact_store>/dagster/dagster.yaml    the instance (DAGSTER_HOME is its folder)
<artifact_store>/dagster/workspace.yaml
<artifact_store>/logs/                   a log for each child
"""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from sentinel_core.config import SentinelConfig

TEMPLATES = Path(__file__).parent / "templates"


def applied_path(config: SentinelConfig) -> Path:
    """Where the applied configuration is."""
    return config.store_path / "config.json"


def dagster_home(config: SentinelConfig) -> Path:
    """DAGSTER_HOME."""
    return config.store_path / "dagster"


def log_folder(config: SentinelConfig) -> Path:
    """Where the children's logs are."""
    return config.store_path / "logs"


def write_applied(config: SentinelConfig) -> Path:
    """Write the applied configuration atomically: a child reads the old one or the new one.

    Nobody else may read it: a URL in it may hold a password.
    """
    path = applied_path(config)
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".json.new")
    fresh.unlink(missing_ok=True)  # one left behind by a crash keeps its mode
    with open(fresh, "w", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(json.dumps(config.to_dict(), indent=2) + "\n")
    return fresh.replace(path)


def write_workspace(config: SentinelConfig) -> Path:
    """Write everything the children need; returns the workspace file. A dagster.yaml of the user's own stays."""
    home = dagster_home(config)
    home.mkdir(parents=True, exist_ok=True)
    log_folder(config).mkdir(exist_ok=True)
    write_applied(config)
    template = (TEMPLATES / "dagster.yaml").read_text(encoding="utf-8")
    instance = home / "dagster.yaml"
    marker = template.partition("\n")[0]
    if not instance.exists() or instance.read_text(encoding="utf-8").startswith(marker):
        quoted = str(home).replace("'", "''")  # inside YAML's single quotes
        instance.write_text(template.replace("{home}", quoted), encoding="utf-8")
    workspace = home / "workspace.yaml"
    workspace.write_text((TEMPLATES / "workspace.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    return workspace


def environment(config: SentinelConfig, base: Mapping[str, str]) -> dict[str, str]:
    """The children's environment: what they read, and what this process can import (a user's own models)."""
    installed = (sys.prefix, sys.base_prefix, sys.exec_prefix)
    own = [str(Path(entry or ".").absolute()) for entry in sys.path if not entry.startswith(installed)]
    return {
        **base,
        "SENTINEL_CONFIG": str(applied_path(config)),
        "DAGSTER_HOME": str(dagster_home(config)),
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(own)),
        "PYTHONUNBUFFERED": "1",
    }

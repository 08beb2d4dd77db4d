"""What makes a Grafana show all of it at once: datasource, dashboards, and a compose file; and `sentinel grafana`."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from string import Template

from sentinel_core.config import SentinelConfig, is_loopback
from sentinel_core.errors import ServiceError
from sentinel_core.grafana.files import FOLDER

PORT = 3001  # Dagster's UI is on Grafana's own 3000
KEY_VARIABLE = "SENTINEL_KEY"
EXAMPLE_FOLDER = "/etc/sentinel/grafana"  # where the committed copies say that they lie
_HOMES = ("/usr/share/grafana", "/opt/homebrew/opt/grafana/share/grafana", "/usr/local/opt/grafana/share/grafana")
_PROGRAMS: tuple[tuple[str, list[str]], ...] = (("grafana", ["server"]), ("grafana-server", []))  # until Grafana 9.4

_DATASOURCE = Template("""\
apiVersion: 1
datasources:
  - name: Sentinel
    uid: sentinel
    type: prometheus
    access: proxy
    url: $url
    isDefault: true
    jsonData:
      httpMethod: POST
      prometheusType: Prometheus
      timeInterval: $interval
      disableRecordingRules: true
      incrementalQuerying: false  # it would keep forecasts that newer ones have replaced
$key""")
_KEY = f"""\
      httpHeaderName1: Authorization
    secureJsonData:
      httpHeaderValue1: Bearer ${KEY_VARIABLE}  # a key with the scope read, from Grafana's environment
"""
_DASHBOARDS = Template("""\
apiVersion: 1
providers:
  - name: Sentinel
    folder: Sentinel
    type: file
    allowUiUpdates: false
    options:
      path: $folder/dashboards
""")
_COMPOSE = Template("""\
# Grafana beside a Sentinel that runs on this machine: docker compose -f $folder/compose.yaml up
services:
  grafana:
    image: grafana/grafana-oss:12.0.2
    network_mode: host  # Sentinel answers on loopback only
    volumes:
      - $folder:$folder:ro
      - data:/var/lib/grafana
    environment:
$environment
volumes:
  data:
""")


def texts(*, url: str, interval: str, folder: str, with_key: bool, port: int = PORT) -> dict[str, str]:
    """The provisioning and the compose file for a Sentinel at a URL, by path below the folder they will lie in."""
    environment = {**settings(Path(folder), port), **({KEY_VARIABLE: f"${{{KEY_VARIABLE}}}"} if with_key else {})}
    lines = "\n".join(f'      {name}: "{value}"' for name, value in environment.items())
    key = _KEY if with_key else ""
    return {
        "provisioning/datasources/sentinel.yaml": _DATASOURCE.substitute(url=url, interval=interval, key=key),
        "provisioning/dashboards/sentinel.yaml": _DASHBOARDS.substitute(folder=folder),
        "compose.yaml": _COMPOSE.substitute(folder=folder, environment=lines),
    }


def settings(folder: Path, port: int) -> dict[str, str]:
    """Grafana's settings as environment variables: on loopback, readable without a login, telling nobody anything."""
    return {
        "GF_PATHS_PROVISIONING": str(folder / "provisioning"),
        "GF_SERVER_HTTP_ADDR": "127.0.0.1",
        "GF_SERVER_HTTP_PORT": str(port),
        "GF_AUTH_ANONYMOUS_ENABLED": "true",  # as a viewer
        "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH": str(folder / "dashboards" / "sentinel-fleet.json"),
        "GF_ANALYTICS_REPORTING_ENABLED": "false",
        "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
    }


def write(config: SentinelConfig, folder: Path, port: int = PORT) -> None:
    """Write everything that is shipped into a folder, for the Sentinel of a configuration."""
    folder = folder.expanduser().absolute()
    interval = min((watch.step_seconds for watch in config.watches), default=60)
    with_key = not is_loopback(config.bind_address)
    made = texts(url=config.sidecar_url, interval=f"{interval}s", folder=str(folder), with_key=with_key, port=port)
    for name, text in made.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    for name in ("dashboards", "rules"):
        shutil.copytree(FOLDER / name, folder / name, dirs_exist_ok=True)


def command(config: SentinelConfig, port: int, environ: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """Prepare a Grafana of this machine, and return its program with arguments, and its environment.

    Raises ServiceError where Grafana is not installed.
    """
    found = [(path, rest) for name, rest in _PROGRAMS if (path := shutil.which(name, path=environ.get("PATH")))]
    if not found:
        raise ServiceError(
            "Grafana is not installed (neither grafana nor grafana-server is on the PATH). Install it from "
            "https://grafana.com/grafana/download, or give the same to another one: "
            "`sentinel grafana --write FOLDER` writes provisioning, dashboards, rules and a compose file"
        )
    if not is_loopback(config.bind_address) and not environ.get(KEY_VARIABLE):
        raise ServiceError(
            f"Sentinel listens on {config.bind_address}, so Grafana needs a key: set {KEY_VARIABLE} to what "
            "`sentinel keys create grafana --all-projects --scope read` prints"
        )
    program, arguments = found[0]
    home = environ.get("GF_PATHS_HOME") or next((one for one in _HOMES if Path(one).is_dir()), None)
    folder = config.store_path / "grafana"
    write(config, folder, port)
    own = {"GF_PATHS_DATA": str(folder / "data"), "GF_PATHS_LOGS": str(folder / "logs")}
    homepath = ["--homepath", home] if home else []
    return [program, *arguments, *homepath], {**environ, **settings(folder, port), **own}


def start(config: SentinelConfig, port: int = PORT) -> None:
    """Become Grafana. Raises ServiceError where it cannot be started."""
    arguments, environment = command(config, port, os.environ)
    print(f"Grafana will be at http://127.0.0.1:{port}, reading {config.sidecar_url}; Ctrl-C ends it.", flush=True)
    try:
        os.execve(arguments[0], arguments, environment)
    except OSError as error:
        raise ServiceError(f"{arguments[0]} cannot be started: {error.strerror}") from error

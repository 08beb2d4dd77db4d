"""The `sentinel` command. Exit codes: 0 done, 1 it could not be done, 2 the configuration or the command is wrong."""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sentinel_core import __version__, administration, evaluation, operations
from sentinel_core.config import SentinelConfig, config_path, load_config
from sentinel_core.drift import in_words
from sentinel_core.durations import format_duration, parse_duration
from sentinel_core.errors import ConfigError, SentinelError, ServiceError
from sentinel_core.sentinel import Sentinel, find_watch
from sentinel_core.workspace import TEMPLATES, applied_path, write_applied

NEEDS_RESTART = ("bind_address", "emitter_port", "dagster_port", "artifact_store", "sql_url", "data_url")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; errors are one message on stderr."""
    arguments = _parser().parse_args(argv)
    sys.path.append(str(Path.cwd()))  # a model of the user's own is found beside sentinel.toml, as `python -m` would
    command: Callable[[argparse.Namespace], int] = arguments.command
    try:
        return command(arguments)
    except ConfigError as error:
        print(f"sentinel: {error}", file=sys.stderr)
        return 2
    except SentinelError as error:
        print(f"sentinel: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `sentinel status | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:  # a full disk, a folder that is not ours
        print(f"sentinel: {error.filename or 'the system'}: {error.strerror or error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sentinel", description="Forecasts of what production will do, on Dagster.")
    parser.add_argument("--version", action="version", version=f"sentinel {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(
        name: str, command: Callable[[argparse.Namespace], int], text: str, among: Any = commands
    ) -> argparse.ArgumentParser:
        found: argparse.ArgumentParser = among.add_parser(name, help=text, description=text)
        found.set_defaults(command=command)
        if name != "init":
            found.add_argument("--config", help="configuration file; default: $SENTINEL_CONFIG, else ./sentinel.toml")
        return found

    def on_the_store(among: Any) -> administration.Add:
        """Adds commands that work on the store of what runs."""
        return lambda name, command, text: add(
            name, lambda arguments: command(_running(arguments), arguments), text, among
        )

    def group(name: str, text: str) -> administration.Add:
        """A command of such commands."""
        found = commands.add_parser(name, help=text, description=text)
        return on_the_store(found.add_subparsers(required=True, metavar="COMMAND"))

    init = add("init", _init, "Write a commented sentinel.toml.")
    init.add_argument("path", nargs="?", default="sentinel.toml")
    add("check", _check, "Validate the configuration and ask Prometheus about every watch.")
    up = add("up", _up, "Start Dagster and the sidecar; Ctrl-C ends them.")
    up.add_argument("--demo", action="store_true", help="watch a demo shop instead of the configured metrics")
    status = add("status", _status, "Say how every watch is.")
    status.add_argument("--json", action="store_true", help="for machines")
    add("reload", _reload, "Apply an edited configuration to the running Sentinel.")
    rollback = add("rollback", _rollback, "Serve an earlier version of a watch and hold it until `sentinel release`.")
    release = add("release", _release, "End a rollback's hold.")
    for changing in (rollback, release):
        changing.add_argument("selector", nargs="?", help='metric, metric{label="value"}, or a query\'s name')
        changing.add_argument("--watch", metavar="SLUG", help="the watch's slug, as `sentinel status` shows it")
        changing.add_argument("--reason", default="by hand, from the command line")
    rollback.add_argument("--to", metavar="VERSION", help="as v3; default: the version before the one that serves")
    grafana = on_the_store(commands)("grafana", _grafana, "Start a Grafana that shows everything, or write its files.")
    grafana.add_argument("--port", type=int, default=3001)
    grafana.add_argument(
        "--write", metavar="FOLDER", help="only write provisioning, dashboards, rules and compose.yaml"
    )
    evaluation.register(on_the_store(commands))
    operations.register(on_the_store(commands), group)
    administration.register(group)
    return parser


def _grafana(config: SentinelConfig, arguments: argparse.Namespace) -> int:
    from sentinel_core.grafana import provisioning

    if arguments.write is None:
        provisioning.start(config, arguments.port)
    else:
        provisioning.write(config, Path(arguments.write), arguments.port)
        print(f"{arguments.write} has provisioning, dashboards, rules and a compose.yaml for {config.sidecar_url}")
    return 0


def _init(arguments: argparse.Namespace) -> int:
    from sentinel_core.models.catalogue import BUILT_INS

    path = Path(arguments.path)
    text = (TEMPLATES / "sentinel.toml").read_text(encoding="utf-8")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text.replace("{models}", ", ".join(f'"{name}"' for name in BUILT_INS)))
    except FileExistsError:
        raise ConfigError([f"{path} exists already; edit it, or remove it first"]) from None
    except OSError as error:
        raise ConfigError([f"{path} cannot be written: {error.strerror}"]) from None
    print(f"{path} is written. Edit it, then: sentinel check, sentinel up")
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from sentinel_core.check import check_watch, describe, monitoring_advice
    from sentinel_core.prometheus.client import PrometheusClient

    config = load_config(arguments.config)
    print(f"{config_path(arguments.config) or 'the defaults, as there is no sentinel.toml'}: valid")
    for advice in monitoring_advice(config, operations.count_receivers(config)):
        print(f"  note: {advice}")
    if not config.watches:
        print("No watch is configured, so that nothing is forecast: models in production alone are looked after.")
        return 0
    failed = 0
    with PrometheusClient(config.prometheus_url, timeout=config.scrape_timeout, auth=config.auth) as client:
        skew = client.now() - time.time()
        print(f"Prometheus answers at {client.url}")
        if abs(skew) > 5:
            print(f"  note: its clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} this machine's")
        for watch in config.watches:
            found = check_watch(client, watch, parse_duration(config.settle_delay))
            print("\n".join(["", *describe(found, time.time())]))
            failed += bool(found.problems)
    print(f"\n{len(config.watches) - failed} of {len(config.watches)} watches can work")
    return 1 if failed else 0


def _up(arguments: argparse.Namespace) -> int:
    config = load_config(arguments.config)
    if arguments.demo:
        from sentinel_core.demo.shop import demo_config

        config = demo_config(config)
    Sentinel(config).start(demo=arguments.demo)
    return 0


def _status(arguments: argparse.Namespace) -> int:
    config = _running(arguments)
    found = Sentinel(config).status()
    if arguments.json:
        print(json.dumps(found, indent=2))
        return 0
    if not found:
        print("No watch is configured; `sentinel models list` shows the models in production.")
    for selector, watch in found.items():
        serving = "nothing serves yet" if watch["active_version"] is None else f"{watch['active_version']} serves"
        held = ", held by a rollback" if watch["pinned"] else ""
        print(f"{selector}\n  {serving}{held}; {watch['series']} series; {'ready' if watch['ready'] else 'not ready'}")
        models: Any = watch["models"]
        wanted = config.watch(str(watch["slug"]))
        if models and list(models) != [wanted.model_name]:
            print("  " + ", ".join(f"{count} {model}" for model, count in models.items()))
        error = "no drift measured yet"
        if watch["drift_mae"] is not None:
            kind = "error" if wanted.drift_unit == "auto" else "MAE"
            error = f"drift: {kind} {in_words(wanted.drift_unit, float(str(watch['drift_mae'])))}"
        age = watch["staleness_seconds"]
        tick = "never ticked" if age is None else f"last tick {format_duration(int(float(str(age))))} ago"
        print(f"  {error} ({watch['severity']}); lookback {watch['buffer_fill']:.0%} filled; {tick}; {watch['slug']}")
        if watch["last_error"]:
            print(f"  last error: {watch['last_error']}")
    return 0


def _reload(arguments: argparse.Namespace) -> int:
    file = config_path(arguments.config)
    if file is None:
        raise ConfigError(["there is no sentinel.toml here; name the file with --config"])
    config = load_config(file)
    if (before := _applied(config)) is not None:
        print("\n".join(describe_changes(before, config)) or "nothing has changed")
    # What runs keeps its addresses and its stores until the next `up`: the rest must find it, and its data, there.
    running = replace(config, **_needing_restart(config))
    reached = {"the sidecar": False, "Dagster": False}
    if applied_path(config).exists():
        write_applied(running)
        reached = {"the sidecar": _reload_sidecar(running), "Dagster": _reload_dagster(running)}
    if not any(reached.values()):
        print("Sentinel does not run on this store; the configuration takes effect with the next `sentinel up`")
        return 0
    for name in (name for name, answered in reached.items() if not answered):
        _warn(f"{name} does not answer, and has the new configuration once it is started again")
    return 0


def _reload_sidecar(config: SentinelConfig) -> bool:
    import httpx

    try:
        answer = httpx.post(f"{config.sidecar_url}/-/reload", timeout=30.0, trust_env=False)
    except httpx.HTTPError:
        return False
    if answer.status_code != 200:
        raise ServiceError(f"the sidecar at {config.sidecar_url} refuses to reload: {answer.text[:300]}")
    print("the sidecar has it")
    return True


def _reload_dagster(config: SentinelConfig) -> bool:
    from sentinel_core.dagster_api import DagsterApi

    with DagsterApi(config.dagster_url) as dagster:
        try:
            dagster.location_problem()
        except ServiceError:
            return False
        dagster.reload()
    print("Dagster has it")
    return True


def describe_changes(before: SentinelConfig, after: SentinelConfig) -> list[str]:
    """What differs between two configurations, a line each."""
    old, new = before.to_dict(), after.to_dict()
    old_watches = {watch.slug: (watch, plain) for watch, plain in zip(before.watches, old.pop("watches"), strict=True)}
    new_watches = {watch.slug: (watch, plain) for watch, plain in zip(after.watches, new.pop("watches"), strict=True)}
    lines = []
    for name, value in new.items():
        if old[name] != value:
            later = " (from the next `sentinel up`)" if name in NEEDS_RESTART else ""
            secret = name in ("auth", "prometheus_url", "sql_url")  # or may be
            lines.append(f"{name}: {'changed' if secret else f'{old[name]} -> {value}'}{later}")
    for slug, (watch, plain) in new_watches.items():
        if slug not in old_watches:
            lines.append(f"new watch {watch.selector} ({slug})")
        else:
            was = old_watches[slug][1]
            lines += [
                f"{watch.selector}: {name}: {was[name]} -> {value}"
                for name, value in plain.items()
                if was[name] != value
            ]
    lines += [
        f"removed watch {watch.selector} ({slug})"
        for slug, (watch, _) in old_watches.items()
        if slug not in new_watches
    ]
    return lines


def _rollback(arguments: argparse.Namespace) -> int:
    sentinel, slug = _chosen(arguments)
    report = sentinel.rollback(watch=slug, version=arguments.to, reason=arguments.reason, say=_warn)
    was = f" instead of v{report.previous}" if report.previous is not None else ""
    print(f"v{report.version} serves {slug}{was} and is held; `sentinel release --watch {slug}` ends that")
    return 0


def _release(arguments: argparse.Namespace) -> int:
    sentinel, slug = _chosen(arguments)
    report = sentinel.release(watch=slug, reason=arguments.reason, say=_warn)
    print(f"v{report.version} serves {slug}, until a candidate is not worse")
    return 0


def _chosen(arguments: argparse.Namespace) -> tuple[Sentinel, str]:
    if (arguments.selector is None) == (arguments.watch is None):
        raise ConfigError(["name one watch: its selector, or --watch SLUG"])
    config = _running(arguments)
    return Sentinel(config), find_watch(config, arguments.watch or arguments.selector).slug


def _running(arguments: argparse.Namespace) -> SentinelConfig:
    """The configuration that was applied to the store, which is what runs; the file's where none was."""
    config = load_config(arguments.config)
    return _applied(config) or replace(config, **_needing_restart(config))


def _applied(config: SentinelConfig) -> SentinelConfig | None:
    """What was applied to the store; None where nothing was, or where it does not hold any more, which is said."""
    path = applied_path(config)
    try:
        return load_config(path) if path.exists() else None
    except ConfigError as error:  # a model's class was renamed, or another release wrote it
        _warn(f"what was applied does not hold any more, and gives way to the configuration as it is now; {error}")
        return None


def _needing_restart(config: SentinelConfig) -> dict[str, Any]:
    """The applied values of what no reload changes, from a file that need not hold as a whole."""
    try:
        settings = json.loads(applied_path(config).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return {name: settings[name] for name in NEEDS_RESTART if name in settings}


def _warn(line: str) -> None:
    print(f"sentinel: {line}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())

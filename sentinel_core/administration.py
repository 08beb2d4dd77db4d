"""`sentinel keys`, `users` and `projects`: who may do what, from the command line.

They work beside a running Sentinel, and before the first start, as they create and upgrade the tables. What a program
reads goes to stdout, what a person reads besides to stderr: `KEY=$(sentinel keys create NAME --scope ingest)`.
"""

import argparse
import getpass
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sentinel_core.config import SentinelConfig
from sentinel_core.durations import parse_duration
from sentinel_core.errors import InvalidError, NotFoundError
from sentinel_core.security.principals import ROLES, SCOPES, Principal, command_line

if TYPE_CHECKING:
    from sentinel_core.apps.services import Backend
    from sentinel_core.security.keys import Key, NewKey
    from sentinel_core.security.users import User

Command = Callable[[SentinelConfig, argparse.Namespace], int]
Add = Callable[[str, Command, str], argparse.ArgumentParser]  # name, what it does, and in words


def register(group: Callable[[str, str], Add]) -> None:
    """Add the commands. group: makes a command of commands, from a name and words, and returns how to add to it."""
    keys = group("keys", "Keys of the applications that send events or use the API.")
    create = keys("create", _create_key, "Make a key. It is printed once: only its hash is kept.")
    create.add_argument("name", help="of the application that gets it")
    create.add_argument("--scope", action="append", choices=SCOPES, required=True, help="may be repeated")
    of = create.add_mutually_exclusive_group()
    of.add_argument("--project", default="default")
    of.add_argument("--all-projects", action="store_true", help="with --scope read: for Grafana, or a Prometheus")
    create.add_argument("--expires", metavar="DURATION", help="as 90d; default: never")
    create.add_argument("--rate", type=float, metavar="EVENTS", help="a second; default: events_per_second")
    listing = keys("list", _list_keys, "Show every key, without its secret.")
    listing.add_argument("--project", help="only its keys")
    rotate = keys("rotate", _rotate_key, "Make a key like another one, which stays good for a while.")
    rotate.add_argument("--overlap", default="24h", metavar="DURATION", help="how long that is; default: 24h")
    revoke = keys("revoke", _revoke_key, "End a key; a running Sentinel knows within a second.")
    for one in (rotate, revoke):
        one.add_argument("key", help="its id, or its name where only one live key has it")

    users = group("users", "People who may log in.")
    new = users("create", _create_user, "Add a user; the password is asked for.")
    new.add_argument("--role", choices=ROLES, help="default: admin for the first user, then viewer")
    new.add_argument("--project", help="the only one they see; default: every one")
    passwd = users("passwd", _change_password, "Give a user another password; ends their sessions.")
    disable = users("disable", _disable_user, "Let a user in no more; ends their sessions.")
    enable = users("enable", _enable_user, "Let a disabled user in again.")
    for one in (new, passwd, disable, enable):
        one.add_argument("name")
    for one in (new, passwd):
        one.add_argument("--password-stdin", action="store_true", help="read it from a line of standard input")
    people = users("list", _list_users, "Show every user.")

    projects = group("projects", "Projects: each has models and keys of its own, and sees no other's.")
    projects("create", _create_project, "Add a project.").add_argument("name")
    shown = projects("list", _list_projects, "Show every project.")
    for one in (create, rotate, listing, people, shown):
        one.add_argument("--json", action="store_true", help="for machines")


# ---- keys ------------------------------------------------------------------------------------------------------------


def _create_key(config: SentinelConfig, arguments: argparse.Namespace) -> int:
    from sentinel_core.apps import commands

    lasting = _seconds("--expires", arguments.expires) if arguments.expires else None
    with open_backend(config) as backend:
        key = commands.create_key(
            backend,
            person(),
            None if arguments.all_projects else project_id_of(backend, arguments.project),
            arguments.name,
            arguments.scope,
            expires_at=None if lasting is None else backend.now() + lasting,
            events_per_second=arguments.rate,
        )
        return _show_key(backend, key, arguments)


def _rotate_key(config: SentinelConfig, arguments: argparse.Namespace) -> int:
    from sentinel_core.apps import commands

    overlap = _seconds("--overlap", arguments.overlap)
    with open_backend(config) as backend:
        old = _find_key(backend, arguments.key)
        key = commands.rotate_key(backend, person(), old.id, overlap_seconds=overlap)
        _say(f"{old.id} stays good until {moment(_key(backend, old.id).expires_at)}")
        return _show_key(backend, key, arguments)


def _revoke_key(config: SentinelConfig, arguments: argparse.Namespace) -> int:
    from sentinel_core.apps import commands

    with open_backend(config) as backend:
        key = _find_key(backend, arguments.key)
        commands.revoke_key(backend, person(), key.id)
    print(f"{key.id} ({key.name}) is revoked")
    return 0


def _list_keys(config: SentinelConfig, arguments: argparse.Namespace) -> int:
    from sentinel_core.security import keys

    with open_backend(config) as backend:
        names = projects_of(backend)
        only = project_id_of(backend, arguments.project) if arguments.project else None
        with backend.store.database.read() as connection:
            found = keys.list_keys(connection, only)
        now = backend.now()
        _warn_of_lost_keys(backend)
    if arguments.json:
        return _print_json([_plain_key(key, names, now) for key in found])
    return print_table(
        ["ID", "NAME", "PROJECT", "SCOPES", "STATE", "EXPIRES", "LAST USED"],
        [
            (key.id, key.name, _of(key, names), ",".join(sorted(key.scopes)), key.state(now), *_span(key))
            for key in found
        ],
        "There is no key; `sentinel keys create NAME --scope ingest` makes one.",
    )


def _show_key(backend: "Backend", new: "NewKey", arguments: argparse.Namespace) -> int:
    """The only time that it is seen."""
    key, names = _key(backend, new.id), projects_of(backend)
    if arguments.json:
        _print_json({**_plain_key(key, names, backend.now()), "key": new.text})
    else:
        until = "does not expire" if key.expires_at is None else f"expires {moment(key.expires_at)}"
        _say(f"{key.name} in {_of(key, names)}: {', '.join(sorted(key.scopes))}; {until}; id {key.id}")
        _say("Keep it where only the application reads it: it is not shown again.")
        print(new.text)
    _warn_of_lost_keys(backend)
    return 0


def _find_key(backend: "Backend", text: str) -> "Key":
    from sentinel_core.security import keys

    with backend.store.database.read() as connection:
        every = keys.list_keys(connection)
    found = [key for key in every if key.id == text]
    found = found or [key for key in every if key.name == text and key.state(backend.now()) == "live"]
    if not found:
        raise NotFoundError(f"no live key is called {text}; `sentinel keys list` shows what there is")
    if len(found) > 1:
        raise InvalidError(
            {"key": f"{len(found)} keys are called {text}; name one by id: {', '.join(k.id for k in found)}"}
        )
    return found[0]


def _key(backend: "Backend", key_id: str) -> "Key":
    from sentinel_core.security import keys

    with backend.store.database.read() as connection:
        return keys.get(connection, key_id)


def _span(key: "Key") -> tuple[str, str]:
    return moment(key.expires_at), moment(key.last_used_at)


def _of(key: "Key", names: Mapping[int, str]) -> str:
    return "every project" if key.project_id is None else names[key.project_id]


def _plain_key(key: "Key", names: Mapping[int, str], now: float) -> dict[str, Any]:
    plain = {name: getattr(key, name) for name in ("id", "name", "events_per_second", "created_by", "created_at")}
    times = {name: getattr(key, name) for name in ("expires_at", "revoked_at", "last_used_at")}
    project = None if key.project_id is None else names[key.project_id]
    return plain | times | {"project": project, "scopes": sorted(key.scopes), "state": key.state(now)}


def _warn_of_lost_keys(backend: "Backend") -> None:
    from sentinel_core.security import keys

    with backend.store.database.read() as connection:
        lost = keys.lost(connection, backend.keyring.pepper, now=backend.now())
    if lost:
        _say(f"WARNING: {lost}")


# ---- users -----------------------------------------------------------------------------------------------------------


def _create_user(config: SentinelConfig, arguments: argparse.Namespace) -> int:
    from sentinel_core.apps import commands
    from sentinel_core.security import users

    with open_backend(config) as backend:
        with backend.store.database.read() as connection:
            role = arguments.role or ("viewer" if users.exist(connection) else "admin")
        only = project_id_of(backend, arguments.project) if arguments.project else None
        password = _password(arguments)
        user_id = commands.create_user(backend, person(), arguments.name, password, role, only)
        with backend.store.database.read() as connection:
            user = users.get(connection, user_id)
    print(f"{user.name} can log in now, as {user.role}" + (f" of {arguments.project}" if arguments.project else ""))
    return 0


def _change_password(config: SentinelConfig, arguments: argparse.Namespace) -> int:
    from sentinel_core.apps import commands

    with open_backend(config) as backend:
        user = _find_user(backend, arguments.name)
        commands.change_user(backend, person(), user.id, password=_password(arguments))
    print(f"{user.name} has another password, and is logged out everywhere")
    return 0


def _disable_user(config: SentinelConfig, arguments: argparse.Namespace) -> int:
    return _set_disabled(config, arguments.name, True)


def _enable_user(config: SentinelConfig, arguments: argparse.Namespace) -> int:
    return _set_disabled(config, arguments.name, False)


def _set_disabled(config: SentinelConfig, name: str, disabled: bool) -> int:
    from sentinel_core.apps import commands

    with open_backend(config) as backend:
        user = _find_user(backend, name)
        commands.change_user(backend, person(), user.id, disabled=disabled)
    print(f"{user.name} {'cannot log in any more' if disabled else 'can log in again'}")
    return 0


def _list_users(config: SentinelConfig, arguments: argparse.Namespace) -> int:
    from sentinel_core.security import users

    with open_backend(config) as backend:
        names = projects_of(backend)
        with backend.store.database.read() as connection:
            found = users.list_users(connection)
    if arguments.json:
        hidden = ("id", "project_id")
        return _print_json(
            [
                {name: value for name, value in asdict(user).items() if name not in hidden}
                | {"project": names.get(user.project_id or 0)}
                for user in found
            ]
        )
    return print_table(
        ["NAME", "ROLE", "PROJECT", "CREATED", "DISABLED"],
        [
            (u.name, u.role, names.get(u.project_id or 0, "all"), moment(u.created_at), moment(u.disabled_at))
            for u in found
        ],
        "Nobody can log in; `sentinel users create NAME` makes the first admin.",
    )


def _find_user(backend: "Backend", name: str) -> "User":
    from sentinel_core.security import users

    with backend.store.database.read() as connection:
        user = users.find(connection, name)
    if user is None:
        raise NotFoundError(f"there is no user {name}; `sentinel users list` shows everybody")
    return user


def _password(arguments: argparse.Namespace) -> str:
    """Asked for twice without echo, or a line of standard input."""
    if arguments.password_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise InvalidError({"password": "there is no terminal to ask for it; send it with --password-stdin"})
    password = getpass.getpass(f"Password of {arguments.name}: ")
    if getpass.getpass("The same again: ") != password:
        raise InvalidError({"password": "the two differ"})
    return password


# ---- projects --------------------------------------------------------------------------------------------------------


def _create_project(config: SentinelConfig, arguments: argparse.Namespace) -> int:
    from sentinel_core.apps import commands

    with open_backend(config) as backend:
        commands.create_project(backend, person(), arguments.name)
    print(f"{arguments.name} is there; `sentinel keys create NAME --project {arguments.name}` makes a key of it")
    return 0


def _list_projects(config: SentinelConfig, arguments: argparse.Namespace) -> int:
    with open_backend(config) as backend:
        names = projects_of(backend)
    if arguments.json:
        return _print_json([{"id": project_id, "name": name} for project_id, name in names.items()])
    return print_table(["ID", "NAME"], [[str(project_id), name] for project_id, name in names.items()], "")


def projects_of(backend: "Backend") -> dict[int, str]:
    """Names of the projects by id."""
    from sentinel_core.storage import model_store

    with backend.store.database.read() as connection:
        return model_store.project_names(connection)


def project_id_of(backend: "Backend", name: str) -> int:
    """The project with this name; NotFoundError says which there are."""
    projects = projects_of(backend)
    for project_id, known in projects.items():
        if name == known:
            return project_id
    raise NotFoundError(f"there is no project {name}; there are: {', '.join(projects.values())}")


# ---- shared ----------------------------------------------------------------------------------------------------------


@contextmanager
def open_backend(config: SentinelConfig) -> Iterator["Backend"]:
    """What commands work with, over a store that has its tables."""
    from sentinel_core.apps.services import Backend
    from sentinel_core.security.keys import KeyRing
    from sentinel_core.security.passwords import Passwords
    from sentinel_core.security.secret import load_pepper
    from sentinel_core.storage.store import Store

    with Store.open(config.resolved_sql_url, config.resolved_data_url) as store:
        store.database.migrate()
        keyring = KeyRing(store, load_pepper(config, os.environ))
        yield Backend(store=store, config=lambda: config, now=time.time, keyring=keyring, passwords=Passwords())


def person() -> Principal:
    """Who sits here, as the machine knows them."""
    try:
        return command_line(getpass.getuser())
    except (KeyError, OSError):  # a container's user without a name
        return command_line(f"uid {os.getuid()}")


def _seconds(option: str, text: str) -> float:
    try:
        return float(parse_duration(text))
    except ValueError as error:
        raise InvalidError({option: str(error)}) from None


def moment(at: float | None) -> str:
    """A time in a table."""
    return "-" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _print_json(value: Any) -> int:
    print(json.dumps(value, indent=2))
    return 0


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], empty: str) -> int:
    """Print rows below a header, or what there is to say of none; returns the exit code."""
    if not rows:
        print(empty)
        return 0
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr)

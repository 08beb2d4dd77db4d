"""`sentinel keys`, `users` and `projects`, as a person at the machine uses them."""

import getpass
import io
import json
import re
import sys
from pathlib import Path

import pytest

from sentinel_core import administration
from sentinel_core.cli import main
from sentinel_core.config import SentinelConfig, load_config
from sentinel_core.security import audit, users
from sentinel_core.security.keys import KeyRing
from sentinel_core.security.passwords import Passwords
from sentinel_core.security.secret import load_pepper
from sentinel_core.storage.store import Store

PASSWORD = "correct horse battery"
KEY = r"sml_live_([0-9a-f]{16})_[0-9a-f]{64}\n"


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, passwords: Passwords) -> None:
    """No configuration, no secret in the environment, a person called ada, and cheap hashes."""
    for name in ("SENTINEL_CONFIG", "SENTINEL_SECRET"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LOGNAME", "ada")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr("sentinel_core.security.passwords.Passwords", lambda: passwords)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> "Run":
    return Run(capsys, monkeypatch)


class Stdin(io.StringIO):
    """Standard input, a terminal where a test says so."""

    is_terminal = False

    def isatty(self) -> bool:
        return self.is_terminal


class Run:
    """Runs a command; what it printed is in `out` and `err`."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capsys, self._monkeypatch = capsys, monkeypatch
        self.out = self.err = ""

    def __call__(self, command: str, stdin: str = "") -> int:
        self._monkeypatch.setattr(sys, "stdin", Stdin(stdin))
        code = main(command.split())
        self.out, self.err = self._capsys.readouterr()
        return code


def opened(config: SentinelConfig | None = None) -> Store:
    config = config or load_config()
    return Store.open(config.resolved_sql_url, config.resolved_data_url)


# ---- keys


def test_a_key_is_printed_once_before_the_first_start(run: Run) -> None:
    """Standard output is the key alone, so that a script can take it; it works, and the store has no copy."""
    assert run("keys create fraud-service --scope ingest --expires 90d --rate 500") == 0
    found = re.fullmatch(KEY, run.out)
    assert found
    assert "fraud-service in default: ingest; expires 2" in run.err
    assert "it is not shown again" in run.err
    key = run.out.strip()
    with opened() as store:
        ring = KeyRing(store, load_pepper(load_config(), {}))
        ring.look()
        principal = ring.authenticate(key)
    assert principal is not None
    assert (principal.name, principal.events_per_second, principal.project_id) == ("fraud-service", 500.0, 1)
    secret = key.rpartition("_")[2]
    assert secret.encode() not in Path("sentinel_artifacts/sentinel.db").read_bytes()
    assert run("keys list") == 0
    assert run.out.splitlines()[0].split("  ")[0] == "ID"
    assert f"{found[1]}  fraud-service  default  ingest  live" in run.out
    assert secret not in run.out


def test_a_key_of_every_project_is_made_and_shown(run: Run) -> None:
    """Grafana's key reads all projects; it takes no other scope, and no project beside."""
    assert run("keys create grafana --scope read --all-projects") == 0
    assert "grafana in every project: read" in run.err
    assert run("keys create grafana --scope ingest --all-projects") == 1
    assert "of a key of every project is read" in run.err
    with pytest.raises(SystemExit):
        run("keys create grafana --scope read --all-projects --project default")
    assert run("keys list") == 0
    assert "grafana  every project  read    live" in run.out
    assert run("keys list --json") == 0
    assert [key["project"] for key in json.loads(run.out)] == [None]


def test_keys_are_rotated_and_revoked_by_name_or_id(run: Run) -> None:
    """A name is enough while one live key has it; then the id says which; both keys live through the overlap."""
    run("keys create app --scope read --scope ingest")
    first = re.fullmatch(KEY, run.out)
    assert run("keys rotate app --overlap 2h") == 0
    second = re.fullmatch(KEY, run.out)
    assert first
    assert second
    assert re.search(rf"{first[1]} stays good until 2\d\d\d-", run.err)
    assert run("keys revoke app") == 1
    assert "2 keys are called app; name one by id:" in run.err
    assert run(f"keys revoke {first[1]}") == 0
    assert run.out == f"{first[1]} (app) is revoked\n"
    assert run("keys list --json") == 0
    states = {key["id"]: (key["state"], key["scopes"], key["created_by"]) for key in json.loads(run.out)}
    rights = (["ingest", "read"], "ada (command line)")
    assert states == {first[1]: ("revoked", *rights), second[1]: ("live", *rights)}
    assert run("keys rotate nothing") == 1
    assert "no live key is called nothing" in run.err


def test_mistakes_are_one_message(run: Run) -> None:
    """Unknown projects, spans that are none and rates below zero are said, without a key."""
    for options, words in (
        ("--project payments", "there is no project payments; there are: default"),
        ("--expires soon", "--expires: 'soon' is not a duration; write 30s, 5m, 1h or 7d"),
        ("--rate -1", "events_per_second: has to be more than 0"),
    ):
        assert run(f"keys create app --scope read {options}") == 1
        assert (words in run.err, run.out) == (True, "")
    assert run("keys list") == 0
    assert run.out == "There is no key; `sentinel keys create NAME --scope ingest` makes one.\n"
    with pytest.raises(SystemExit):
        run("keys create app")


def test_a_lost_secret_is_said(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """With another secret the keys of before are named as lost; with a short one nothing is done."""
    run("keys create app --scope read")
    monkeypatch.setenv("SENTINEL_SECRET", "s" * 32)
    assert run("keys list") == 0
    assert "WARNING: 1 key was made with another secret, and nobody can use it any more (app)" in run.err
    monkeypatch.setenv("SENTINEL_SECRET", "short")
    assert run("keys list") == 2
    assert "SENTINEL_SECRET: has fewer than 32 bytes" in run.err


def test_projects_keep_their_keys_apart(run: Run) -> None:
    """A key is made for the project that is named, and listed with it."""
    assert run("projects create payments") == 0
    assert run("projects create payments") == 1
    run("keys create app --scope admin --project payments --json")
    assert json.loads(run.out)["project"] == "payments"
    assert re.fullmatch(KEY, json.loads(run.out)["key"] + "\n")
    run("keys list --project default")
    assert "There is no key" in run.out
    run("projects list --json")
    assert json.loads(run.out) == [{"id": 1, "name": "default"}, {"id": 2, "name": "payments"}]
    run("projects list")
    assert run.out == "ID  NAME\n1   default\n2   payments\n"


# ---- users


def test_the_first_user_is_an_admin_and_the_next_a_viewer(run: Run) -> None:
    """Roles by default, or as given; every change is audited under the name of who made it."""
    assert run("users create Grace --password-stdin", f"{PASSWORD}\n") == 0
    assert run.out == "grace can log in now, as admin\n"
    run("users create vera --password-stdin", PASSWORD)
    run("projects create payments")
    run("users create otto --role operator --project payments --password-stdin", PASSWORD)
    assert run.out == "otto can log in now, as operator of payments\n"
    run("users list")
    rows = [line.split()[:3] for line in run.out.splitlines()]
    assert rows[1:] == [
        ["grace", "admin", "all"],
        ["otto", "operator", "payments"],
        ["vera", "viewer", "all"],
    ]
    with opened() as store, store.database.read() as connection:
        assert {entry.actor for entry in audit.entries(connection)} == {"ada (command line)"}


def test_a_password_is_asked_for_twice(run: Run, monkeypatch: pytest.MonkeyPatch, passwords: Passwords) -> None:
    """At a terminal it is typed twice without echo; without one there is the option; a short one is refused."""
    assert run("users create grace") == 1
    assert "there is no terminal to ask for it; send it with --password-stdin" in run.err
    monkeypatch.setattr(Stdin, "is_terminal", True)
    typed = [PASSWORD, "another one", PASSWORD, PASSWORD]
    monkeypatch.setattr(getpass, "getpass", lambda prompt: typed.pop(0))
    assert run("users create grace") == 1
    assert "password: the two differ" in run.err
    assert run("users create grace") == 0
    with opened() as store, store.database.read() as connection:
        assert passwords.verify(users.password_hash(connection, 1), PASSWORD)
    assert run("users passwd grace --password-stdin", "short") == 1
    assert "takes 12 to 1024 characters" in run.err


def test_users_are_changed_by_name(run: Run, passwords: Passwords) -> None:
    """Another password, out and in again; the last admin stays, and a name that is none is said."""
    run("users create grace --password-stdin", PASSWORD)
    run("users create vera --password-stdin", PASSWORD)
    assert run("users passwd VERA --password-stdin", "another good one") == 0
    assert run("users disable vera") == 0
    assert run.out == "vera cannot log in any more\n"
    run("users list --json")
    assert [user["disabled_at"] is None for user in json.loads(run.out)] == [True, False]
    assert not {"id", "password_hash"} & json.loads(run.out)[0].keys()
    assert run("users enable vera") == 0
    assert run("users disable grace") == 1
    assert "grace is the last admin" in run.err
    assert run("users passwd nobody --password-stdin", PASSWORD) == 1
    assert "there is no user nobody" in run.err
    with opened() as store, store.database.read() as connection:
        assert passwords.verify(users.password_hash(connection, 2), "another good one")


def test_no_user_is_said(run: Run) -> None:
    """An empty list says how to come by the first admin."""
    run("users list")
    assert run.out == "Nobody can log in; `sentinel users create NAME` makes the first admin.\n"


@pytest.mark.parametrize("name", ["", "x" * 65, "a\tb"])
def test_a_project_has_a_name_that_can_be_read(run: Run, name: str) -> None:
    """Others are refused in words."""
    assert main(["projects", "create", name]) == 1
    assert run("projects list") == 0
    assert len(run.out.splitlines()) == 2


@pytest.mark.postgres
def test_everything_works_on_postgresql(run: Run, postgres_url: str) -> None:
    """Keys and users in a database that has no tables yet."""
    Path("sentinel.toml").write_text(f'sql_url = "{postgres_url}"\n')
    assert run("keys create app --scope ingest") == 0
    assert run("keys rotate app") == 0
    assert run("users create grace --password-stdin", PASSWORD) == 0
    assert run("users passwd grace --password-stdin", PASSWORD) == 0
    assert run("projects create payments") == 0
    run("keys list")
    assert run.out.count("app") == 2


def test_a_person_without_a_name_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container whose user has no name the audit has the number."""

    def nameless() -> str:
        raise OSError("no username")

    monkeypatch.setattr(getpass, "getuser", nameless)
    assert re.fullmatch(r"uid \d+ \(command line\)", administration.person().actor)

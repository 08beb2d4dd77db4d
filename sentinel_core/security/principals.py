"""Who asks, and what they may do."""

from dataclasses import dataclass
from typing import Literal, get_args

Role = Literal["viewer", "operator", "admin"]
Scope = Literal["ingest", "read", "admin"]
Action = Literal[
    "ingest",  # send events
    "read",
    "operate",  # acknowledge, resolve, close, pin, accept, change thresholds, enable and disable
    "administer",  # keys and receivers of a project; delete models
    "govern",  # users and projects
]
ROLES: tuple[Role, ...] = get_args(Role)
SCOPES: tuple[Scope, ...] = get_args(Scope)

_OF_ROLE: dict[Role, frozenset[Action]] = {
    "viewer": frozenset({"read"}),
    "operator": frozenset({"read", "operate"}),
    "admin": frozenset({"read", "operate", "administer", "govern"}),
}
_OF_SCOPE: dict[Scope, frozenset[Action]] = {
    "ingest": frozenset({"ingest"}),
    "read": frozenset({"read"}),
    "admin": frozenset({"ingest", "read", "operate", "administer"}),
}


@dataclass(frozen=True)
class Principal:
    """Somebody who was recognised.

    kind:       a key, a user with a session, "local": somebody who reads pages on this machine without a login, or
                "cli": the command line, where whoever can read the store can change it
    id:         of the key or the user, as text
    project_id: the only project they see; None: every one
    """

    name: str
    kind: Literal["key", "user", "local", "cli"]
    project_id: int | None
    role: Role | None = None
    scopes: frozenset[Scope] = frozenset()
    id: str = ""
    events_per_second: float | None = None  # of a key; None: the configured default

    def may(self, action: Action, project_id: int | None = None) -> bool:
        """Whether they may do it, in this project where one is named.

        >>> Principal("fraud-service", "key", 1, scopes=frozenset({"admin"})).may("operate", 2)
        False
        """
        if project_id is not None and not self.sees(project_id):
            return False
        if action == "govern" and self.project_id is not None:  # an admin of one project is no admin of the others
            return False
        granted = [_OF_SCOPE[scope] for scope in self.scopes] + ([_OF_ROLE[self.role]] if self.role else [])
        return any(action in actions for actions in granted)

    def sees(self, project_id: int | None) -> bool:
        """Whether a project is theirs, None being every one; what is not must look as if it did not exist."""
        return self.project_id is None or self.project_id == project_id

    @property
    def actor(self) -> str:
        """How timelines and the audit call them; at most 120 characters.

        >>> Principal("fraud-service", "key", 1).actor
        'key fraud-service'
        """
        return {"key": f"key {self.name}", "cli": f"{self.name} (command line)"}.get(self.kind, self.name)[:120]


LOCAL = Principal("somebody on this machine", "local", None, "viewer")


def command_line(login: str) -> Principal:
    """The person at the command line, by the name they logged in to the machine with."""
    return Principal(login, "cli", None, "admin")

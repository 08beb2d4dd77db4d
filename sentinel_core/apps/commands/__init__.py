"""Everything that changes the store because somebody asked: shared by the JSON API, the pages and the command line.

Each command checks that the principal may do it, does it, and writes the audit row in the same transaction. They block:
call them beside the event loop. All of them raise

- ForbiddenError where the principal's role or scopes do not allow it
- NotFoundError for what is not there, and for what belongs to another project: nobody learns that it exists
- InvalidError for values that cannot be; it names each of them
- ConflictError for what somebody else changed first, a name that is taken, and a step that the state does not allow
- StoreError where the store refuses
"""

from sentinel_core.apps.commands.accounts import (
    change_project,
    change_user,
    create_key,
    create_project,
    create_user,
    revoke_key,
    rotate_key,
)
from sentinel_core.apps.commands.incidents import change_incident, resend_delivery
from sentinel_core.apps.commands.models import (
    accept_as_new_normal,
    change_settings,
    delete_model,
    enable_model,
    pin_baseline,
    unpin_baseline,
)
from sentinel_core.apps.commands.receivers import (
    TestOutcome,
    change_receiver,
    create_receiver,
    remove_receiver,
    test_receiver,
)
from sentinel_core.apps.commands.rights import allow

__all__ = [
    "TestOutcome",
    "accept_as_new_normal",
    "allow",
    "change_incident",
    "change_project",
    "change_receiver",
    "change_settings",
    "change_user",
    "create_key",
    "create_project",
    "create_receiver",
    "create_user",
    "delete_model",
    "enable_model",
    "pin_baseline",
    "remove_receiver",
    "resend_delivery",
    "revoke_key",
    "rotate_key",
    "test_receiver",
    "unpin_baseline",
]

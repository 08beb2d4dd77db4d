"""Send the alerts that are owed."""

from sentinel_core.alerts import outbox
from sentinel_core.alerts.dispatch import DeliveryReport
from sentinel_core.alerts.dispatch import deliver as dispatch
from sentinel_core.pipeline.context import Context


def deliver(context: Context) -> DeliveryReport:
    """Send every alert that is due; a receiver that fails is tried again later, and delays no other."""
    return dispatch(context.store.database, context.config, clock=context.clock)


def deliveries_due(context: Context) -> bool:
    """Whether an alert has to be sent or repeated now."""
    with context.store.database.read() as conn:
        due = outbox.next_due(conn)
    return due is not None and due <= context.clock()

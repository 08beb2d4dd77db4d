"""Accepted events as columns, and as the bytes of one row of the event log."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from sentinel_core.windows import FloatArray, IntArray

COLUMNS: Mapping[str, type[np.generic]] = {
    "model": np.int32,
    "ts": np.int64,
    "id": np.int64,
    "score": np.float64,
    "number": np.float64,
    "label": np.int64,
}
_FORMAT = 1


@dataclass(frozen=True)
class EventColumns:
    """Events of any models, columns of equal length [n].

    model: id of the monitored model. ts: event time, whole unix seconds. id: digest of model and event_id, 0: none
    score, number: NaN where there is none. label: fingerprint of a prediction that is text or a truth value, 0: none
    texts: what people call the labels
    """

    model: NDArray[np.int32]
    ts: IntArray
    id: IntArray
    score: FloatArray
    number: FloatArray
    label: IntArray
    texts: Mapping[int, str]

    def __len__(self) -> int:
        return len(self.ts)

    def where(self, mask: NDArray[np.bool_]) -> "EventColumns":
        """Those events where bool [n] holds; every text stays."""
        return EventColumns(**{name: getattr(self, name)[mask] for name in COLUMNS}, texts=self.texts)

    @classmethod
    def concatenated(cls, parts: Iterable["EventColumns"]) -> "EventColumns":
        """All events of several, in their order."""
        listed = list(parts)
        texts = {label: text for part in listed for label, text in part.texts.items()}
        columns = {
            name: np.concatenate([np.empty(0, kind), *(getattr(part, name) for part in listed)]).astype(
                kind, copy=False
            )
            for name, kind in COLUMNS.items()
        }
        return cls(**columns, texts=texts)


class _Payload(msgspec.Struct, array_like=True):
    format: int
    events: int
    columns: dict[str, bytes]  # little-endian; of one value where all are the same
    texts: dict[int, str]


_DECODER = msgspec.msgpack.Decoder(_Payload)


def encode(columns: EventColumns) -> bytes:
    """Return the bytes that the event log keeps: about 30 an event."""
    packed = {name: _packed(getattr(columns, name), kind) for name, kind in COLUMNS.items()}
    return msgspec.msgpack.encode(_Payload(_FORMAT, len(columns), packed, dict(columns.texts)))


def decode(payload: bytes) -> EventColumns:
    """Return the columns again, bit for bit. Raises ValueError for bytes that `encode` has not written."""
    try:
        found = _DECODER.decode(payload)
        if found.format != _FORMAT:
            raise ValueError(f"payload format {found.format} is newer than this Sentinel knows: upgrade it")
        columns = {name: _unpacked(found.columns[name], kind, found.events) for name, kind in COLUMNS.items()}
    except (msgspec.DecodeError, KeyError) as error:
        raise ValueError(f"not a payload of the event log: {error}") from error
    return EventColumns(**columns, texts=found.texts)


def _packed(column: NDArray[np.generic], kind: type[np.generic]) -> bytes:
    stored = np.ascontiguousarray(column, np.dtype(kind).newbyteorder("<"))
    bits = stored.view(f"<i{stored.itemsize}")  # NaN equals itself here
    return stored[:1].tobytes() if len(bits) and (bits == bits[0]).all() else stored.tobytes()


def _unpacked(content: bytes, kind: type[np.generic], events: int) -> NDArray[Any]:
    values = np.frombuffer(content, np.dtype(kind).newbyteorder("<")).astype(kind, copy=False)
    if len(values) == events:
        return values
    if len(values) != 1:
        raise ValueError(f"not a payload of the event log: {len(values)} values for {events} events")
    return np.repeat(values, events)

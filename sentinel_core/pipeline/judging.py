"""What each model is judged with: its settings, baseline, and hours that do not count, now or as of a past hour."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import sqlalchemy as sa

from sentinel_core.config import MonitorConfig, SentinelConfig
from sentinel_core.incidents import store as incidents
from sentinel_core.incidents.lifecycle import Incident
from sentinel_core.monitoring.assessment import LABEL
from sentinel_core.pipeline.freezing import Kept
from sentinel_core.pipeline.windowing import Content, Judged, Span
from sentinel_core.storage import model_store
from sentinel_core.storage.model_store import BaselineRow, MonitoredModel

_MOST_INCIDENTS = 100_000


@dataclass(frozen=True)
class Ground:
    """Models with what they are judged with now; those without a baseline are in `models` only.

    texts: of labels, by model id and fingerprint
    """

    models: Sequence[MonitoredModel]
    settings: Sequence[MonitorConfig]
    judged: Sequence[Judged]
    texts: Mapping[int, Mapping[int, str]]


def ground(conn: sa.Connection, config: SentinelConfig, models: Sequence[MonitoredModel]) -> Ground:
    """Return what some models are judged with now."""
    ids = [one.id for one in models]
    settings = [one.monitor_config(config.monitoring) for one in models]
    baselines = model_store.current_baselines(conn, ids)
    contents = {one: Content.from_json(row.bins) for one, row in baselines.items()}
    active = {one.model_id: one for one in incidents.active(conn) if one.kind == "psi"}
    spans: dict[int, list[Span]] = {}
    for span in incidents.drift_spans(conn, 0, set(ids)):
        if span.model_id in contents and (span.baseline_version or 0) >= contents[span.model_id].accepted:
            spans.setdefault(span.model_id, []).append((span.from_hour, span.until_hour))
    judged = [
        Judged(
            one,
            config,
            baselines[one.id],
            contents[one.id],
            spans.get(one.id, ()),
            _kept(active.get(one.id), baselines[one.id], contents[one.id]),
        )
        for one, config in zip(models, settings, strict=True)
        if one.id in baselines
    ]
    return Ground(models, settings, judged, _texts(conn, judged))


class Past:
    """Models with every baseline and incident that they had: what they were judged with at some hour."""

    def __init__(self, conn: sa.Connection, config: SentinelConfig, models: Sequence[MonitoredModel]) -> None:
        ids = {one.id for one in models}
        self._config = config
        self._models = models
        self._baselines: dict[int, list[BaselineRow]] = {}
        for row in model_store.baselines(conn, ids):
            self._baselines.setdefault(row.model_id, []).append(row)
        self._contents: dict[tuple[int, int], Content] = {}
        self._incidents: dict[int, list[Incident]] = {}
        for incident in incidents.list_incidents(conn, kind="psi", limit=_MOST_INCIDENTS):
            if incident.model_id in ids:
                assert incident.model_id is not None
                self._incidents.setdefault(incident.model_id, []).append(incident)
        self.texts = model_store.labels(conn, ids)

    def judged(self, hour: int) -> list[Judged]:
        """The models that had a baseline at the end of an hour, as they were judged then but for their settings."""
        found = []
        for model in self._models:
            row = next((row for row in reversed(self._baselines.get(model.id, ())) if _known(row, hour)), None)
            if row is None:
                continue
            content = self._content(row)
            known = [one for one in self._incidents.get(model.id, ()) if one.opened_at < hour]
            lasting = next((one for one in known if hour <= one.until_hour), None)
            spans = [
                (one.from_hour, min(one.until_hour, hour))
                for one in known
                if (one.baseline_version or 0) >= content.accepted
            ]
            settings = model.monitor_config(self._config.monitoring)
            found.append(Judged(model, settings, row, content, spans, _kept(lasting, row, content)))
        return found

    def _content(self, row: BaselineRow) -> Content:
        key = row.model_id, row.version
        if key not in self._contents:
            self._contents[key] = Content.from_json(row.bins)
        return self._contents[key]


def _known(row: BaselineRow, hour: int) -> bool:
    """Whether a version was there when an hour was evaluated: one made by the rule comes just before its hour's end."""
    return row.t1 <= hour if row.kind == "sliding" else row.created_at < hour


def _kept(incident: Incident | None, row: BaselineRow, content: Content) -> Kept | None:
    """What a baseline is frozen as; an incident's only where nobody has chosen another one since it opened."""
    if incident is not None and incident.frozen and incident.baseline_version == row.version:
        return msgspec.json.decode(incident.frozen, type=Kept)
    return content.kept


def _texts(conn: sa.Connection, judged: Sequence[Judged]) -> dict[int, dict[int, str]]:
    return model_store.labels(conn, [one.model.id for one in judged if LABEL in one.content.outputs])

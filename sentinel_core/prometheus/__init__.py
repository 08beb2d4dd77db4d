"""Reading Prometheus: a client, its answers as arrays, and a watch as a Window."""

from sentinel_core.prometheus.client import PrometheusClient, Retry
from sentinel_core.prometheus.decode import Matrix
from sentinel_core.prometheus.scrape import (
    Scrape,
    SourceFacts,
    emitted_name,
    expression,
    newest_step,
    scrape,
    source_facts,
)

__all__ = [
    "Matrix",
    "PrometheusClient",
    "Retry",
    "Scrape",
    "SourceFacts",
    "emitted_name",
    "expression",
    "newest_step",
    "scrape",
    "source_facts",
]

"""Send prediction events to Sentinel from an application.

    from sentinel_core.client import Client

    sentinel = Client("http://localhost:8080", key)
    sentinel.send("fraud-score", score=0.83, prediction="review")

`send` puts the event into a buffer and returns; a background thread sends batches. It never blocks and never raises:
where Sentinel is away, events wait in a bounded buffer, and the oldest are dropped when it is full. An event keeps its
id however often it is sent, so that none is counted twice. Needs httpx and msgspec, nothing else of Sentinel.
"""

from sentinel_core.client._client import AsyncClient, Client, Stats

__all__ = ["AsyncClient", "Client", "Stats"]

"""`python soak_target.py PORT SERIES`: metrics that are functions of time, over HTTP and as a past in OpenMetrics.

soak_load{host}             gauge; one more series, host="gone", is in the past only, to just before its end
soak_requests_total{host}   counter that restarts every hour
soak_queue{host}            gauge
"""

import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.prometheus_server import History

GONE = "gone"
GONE_SECONDS = 120  # its last sample is as old at the end of the past: it still lives for another three minutes
TARGET = ',instance="target",job="soak"'  # labels that Prometheus adds
SCRAPE_SECONDS = 5
SPACINGS = {"soak_load": 15, "soak_requests": SCRAPE_SECONDS, "soak_queue": 15}  # of the past, seconds
KINDS = {"soak_load": "gauge", "soak_requests": "counter", "soak_queue": "gauge"}


def value(family: str, number: int, t: float) -> float:
    """What series `number` of a family is at t, unix seconds."""
    wave = math.sin(2 * math.pi * t / (600 + 7 * number) + number)
    if family == "soak_requests":
        since = t % 3_600
        return (50 + number) * since + 1_000 * (1 - math.cos(2 * math.pi * since / 600))
    return 100 + number + 20 * wave + (5 * math.sin(t / 37) if family == "soak_queue" else 0)


def lines(family: str, series: int, t: float) -> Iterator[str]:
    """The samples of a family at t."""
    name = f"{family}_total" if KINDS[family] == "counter" else family
    for number in range(series):
        yield f'{name}{{host="h{number:03d}"}} {value(family, number, t):.6f}'


@dataclass(frozen=True)
class Past(History):
    """`days` of it up to `end`; `series` for each family."""

    @property
    def gone_at(self) -> int:
        """When the vanished series had its last sample, unix seconds."""
        return self.end - GONE_SECONDS

    def write(self, path: Path) -> None:
        """Write OpenMetrics as the server would have been scraped, with its labels."""
        with path.open("w", buffering=1 << 20) as file:
            for family, kind in KINDS.items():
                file.write(f"# TYPE {family} {kind}\n")
                spacing = SPACINGS[family]
                times = range(self.start // spacing * spacing, self.end + 1, spacing)
                for t in times:
                    own = list(lines(family, self.series, t))
                    if family == "soak_load" and t <= self.gone_at:
                        own.append(f'soak_load{{host="{GONE}"}} {value(family, 0, t):.6f}')
                    file.writelines(one.replace("}", TARGET + "}") + f" {t}\n" for one in own)
            file.write("# EOF\n")


def main() -> None:
    """Serve until the process is ended."""
    port, series = int(sys.argv[1]), int(sys.argv[2])

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            now = time.time()
            text = "".join(
                f"# TYPE {family}{'_total' if kind == 'counter' else ''} {kind}\n"
                + "\n".join(lines(family, series, now))
                + "\n"
                for family, kind in KINDS.items()
            )
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: object) -> None:
            """A line per scrape helps nobody."""

    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    main()

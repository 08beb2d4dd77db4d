"""`python -m sentinel_core.demo.scoring --url http://127.0.0.1:8080 --key-file key`: an application with three models.

It uses `sentinel_core.client` as any application would. At the start it sends the four weeks (of the demo's short days)
before as late events, so that there is something to compare with; what is known already is not counted again.
"""

import argparse
import time
from pathlib import Path

from sentinel_core.client import Client
from sentinel_core.demo.production import HISTORY_STEPS, MODELS, STEP_SECONDS, scored


def send(client: Client, first: int, last: int, since: int) -> None:
    """Send the events of steps first … last - 1 of the story that began at step `since`."""
    for step in range(first, last):
        for event in scored(step, since):
            client.send(**vars(event))


def main() -> None:
    """Send what was, then what is, until the process is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--key-file", type=Path, required=True)
    arguments = parser.parse_args()
    since = done = int(time.time()) // STEP_SECONDS
    with Client(arguments.url, arguments.key_file.read_text(encoding="ascii"), batch=1_000) as client:
        send(client, since - HISTORY_STEPS, since, since)
        client.flush(None)
        print(f"four weeks of {', '.join(MODELS)} are sent: {client.stats}", flush=True)
        while True:
            time.sleep(STEP_SECONDS - time.time() % STEP_SECONDS)
            now = int(time.time()) // STEP_SECONDS
            send(client, done, now, since)
            done = now


if __name__ == "__main__":
    main()

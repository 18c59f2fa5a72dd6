"""The gateway with its requests watched, or not: `python -m benchmarks.watched PORT CONFIG HOW`.

HOW is "watched" or "unwatched". Both are put together here, in the same way and from the same
parts, but that in the second one what the edge tells of a request goes nowhere. It knows how a
gateway is composed; it does not know what it is asked.
"""

import gc
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvloop

from gateway.app import Gateway
from gateway.config import Config, load
from gateway.edge.server import bind, make_server
from gateway.foundation import Foundation
from gateway.logs import open_log


class Silent:
    """Takes what is told of requests, and forgets it."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        """Return a listener that does nothing."""
        return lambda *_, **__: None


def compose(foundation: Foundation, config: Config, *, watched: bool) -> Gateway:
    """Return the gateway, with metrics of its requests or without."""
    if not watched:
        silent: Any = Silent()
        foundation.metrics.requests = silent
    return Gateway(config, foundation)


async def main(port: int, path: Path, *, watched: bool) -> None:
    """Serve until killed."""
    config = load(path, {})
    with tempfile.TemporaryDirectory() as directory:
        foundation = Foundation(config, Path(directory), open_log("warning", "json"))
        gateway = compose(foundation, config, watched=watched)
        await foundation.start()
        await gateway.start()
        # As gateway.running.service does it.
        gc.freeze()
        gc.set_threshold(20_000, 20, 50)
        await make_server(gateway.app, config.server).serve([bind("127.0.0.1", port)])


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), Path(sys.argv[2]), watched=sys.argv[3] == "watched"))

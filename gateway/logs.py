"""Where log lines go: stderr, as JSON or for a person, uvicorn's own lines among them.

Nothing that is logged anywhere in the gateway holds a text or a key; this module only formats.
"""

import logging
import sys
from typing import TextIO

import structlog


def open_log(level: str, form: str, stream: TextIO | None = None) -> structlog.stdlib.BoundLogger:
    """Return the logger that everything is given. `form` is "json", "console" or "auto"."""
    out = stream or sys.stderr
    people = form == "console" or (form == "auto" and out.isatty())
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if people else "iso", utc=not people),
    ]
    last: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=out.isatty())
        if people
        else structlog.processors.JSONRenderer()
    )
    handler = logging.StreamHandler(out)
    # A traceback's last line may quote what was worked on; its place is enough.
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*shared, _without_traceback],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last],
    )
    handler.setFormatter(formatter)
    for name in ("uvicorn", "asyncio", "aiohttp", "httpx2", "httpcore2"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        # Their debug lines hold headers, and with them keys.
        logger.setLevel(max(number, logging.WARNING))
    bound: structlog.stdlib.BoundLogger = structlog.wrap_logger(
        structlog.WriteLogger(out),
        processors=[*shared, last],
        wrapper_class=structlog.make_filtering_bound_logger(number),
    ).bind()  # a proxy until then, which would bind at every call
    return bound


def _without_traceback(
    _: object, __: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    error = event.pop("exc_info", None)
    # asyncio tells of a lost task in one line, and of what it was about in the next.
    event["event"] = str(event["event"]).partition("\n")[0]
    if isinstance(error, tuple) and error[0] is not None:
        event["kind"] = error[0].__name__
    return event

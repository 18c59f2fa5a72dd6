"""Log lines: one JSON object each, or a line for people, and no words of what was worked on."""

import asyncio
import io
import json
import logging

import pytest

from gateway.logs import open_log


class Terminal(io.StringIO):
    def isatty(self):
        return True


def written(level="debug", form="json", stream=None):
    stream = stream or io.StringIO()
    return open_log(level, form, stream), stream


def test_a_line_is_one_json_object():
    """Event, level, time in UTC, and what was said beside."""
    log, stream = written()
    log.info("engine died", code=-9)
    (line,) = map(json.loads, stream.getvalue().splitlines())
    assert (line["event"], line["level"], line["code"]) == ("engine died", "info", -9)
    assert line["timestamp"].endswith("Z")


@pytest.mark.parametrize(
    ("form", "stream", "json_lines"),
    [
        ("json", io.StringIO, True),
        ("json", Terminal, True),
        ("console", io.StringIO, False),
        ("auto", io.StringIO, True),
        ("auto", Terminal, False),
    ],
)
def test_people_get_lines_for_people(form, stream, json_lines):
    """`auto` asks whether a terminal reads them."""
    log, out = written(form=form, stream=stream())
    log.warning("something", x=1)
    assert out.getvalue().startswith("{") == json_lines
    assert "something" in out.getvalue()


@pytest.mark.parametrize(
    ("level", "count"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)]
)
def test_the_level_is_the_least_that_is_logged(level, count):
    """As the config says."""
    log, stream = written(level)
    for name in ("debug", "info", "warning", "error"):
        getattr(log, name)("said")
    assert count == len(stream.getvalue().splitlines())


@pytest.mark.parametrize(
    "name", ["uvicorn.lifespan", "asyncio", "httpcore2.connection", "aiohttp.client"]
)
def test_libraries_speak_in_our_form_and_from_warnings_on(name):
    """Their debug lines hold headers, and with them keys."""
    _, stream = written("debug")
    logging.getLogger(name).debug("authorization: Bearer canary")
    logging.getLogger(name).info("connect to canary")
    logging.getLogger(name).warning("it broke")
    (line,) = map(json.loads, stream.getvalue().splitlines())
    assert (line["event"], line["level"]) == ("it broke", "warning")


def test_a_librarys_traceback_is_only_its_kind():
    """The last line of a traceback may quote a text."""
    _, stream = written()
    try:
        raise ValueError("canary")
    except ValueError:
        logging.getLogger("uvicorn.lifespan").exception("failed")
    (line,) = map(json.loads, stream.getvalue().splitlines())
    assert (line["event"], line["kind"]) == ("failed", "ValueError")
    assert "canary" not in stream.getvalue()


def test_a_lost_task_does_not_quote_what_it_was_about():
    """asyncio tells of exceptions that nobody retrieved, with their messages."""
    _, stream = written()

    async def scene():
        async def fail():
            raise ValueError("canary")

        task = asyncio.ensure_future(fail())
        await asyncio.wait({task})
        del task

    asyncio.run(scene())
    assert "canary" not in stream.getvalue()

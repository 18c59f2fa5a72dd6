"""All readers of bytes that come from somebody else, by name; each is imported when it is used."""

from importlib import import_module

from tests.heavy.fuzzing.target import Target

_PLACES = {
    "request": ("requests", "REQUEST"),
    "config": ("configs", "CONFIG"),
    "record": ("records", "RECORD"),
    "events": ("answers", "EVENTS"),
    "answer": ("answers", "ANSWER"),
    "engine": ("prompts", "ENGINE"),
    "file": ("files", "FILE"),
}
NAMES = tuple(_PLACES)


def load(name: str) -> Target:
    """Return a target. That of the engine needs the extra [local]."""
    module, constant = _PLACES[name]
    target = getattr(import_module(f"tests.heavy.fuzzing.{module}"), constant)
    assert isinstance(target, Target)
    return target

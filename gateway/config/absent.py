"""What is only needed to ask an upstream, and so may be missing where none is asked.

A job in CI has the config and the cache, and neither keys nor the company's certificates. It asks
nobody, or not those whose models are all marked offline. What decides whose vector is whose, or who
may call, is not among it: that is an error everywhere.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import msgspec

from gateway.config.files import unreadable
from gateway.config.problems import KeyPath, Problem
from gateway.config.schema import Config
from gateway.config.upstreams import OpenAIUpstream


def needed_only_to_ask(path: KeyPath) -> bool:
    """Return whether the value of this option says how to reach an upstream, and no more."""
    match path:
        case ("upstreams", str(), "api_key" | "proxy" | "ca_file"):
            return True
        case ("upstreams", str(), "headers", str()):
            return True
    return False


def leave_out(tables: dict[str, Any], paths: Iterable[KeyPath]) -> None:
    """Remove the values at these paths."""
    for *outer, name in paths:
        table: Any = tables
        for part in outer:
            table = table[part]
        del table[name]


def without_unreadable(config: Config) -> Config:
    """Return the config without each `ca_file` that cannot be read; `absent` says which."""
    upstreams = dict(config.upstreams)
    absent = list(config.absent)
    for name, upstream in config.upstreams.items():
        file = upstream.ca_file if isinstance(upstream, OpenAIUpstream) else None
        if file is not None and (reason := unreadable(file)):
            upstreams[name] = msgspec.structs.replace(upstream, ca_file=None)
            absent.append(Problem(("upstreams", name, "ca_file"), reason))
    return msgspec.structs.replace(config, upstreams=upstreams, absent=tuple(absent))


def absences(config: Config) -> list[Problem]:
    """Return what is absent: as warnings where nothing is asked, else as errors."""
    return [
        replace(problem, message=f"{problem.message}; left out, for nothing is asked", warning=True)
        if not _is_asked(str(problem.path[1]), config)
        else problem
        for problem in config.absent
    ]


def _is_asked(upstream: str, config: Config) -> bool:
    """Return whether a request may go there; of one that no model uses it is not yet known."""
    if config.server.offline:
        return False
    offline = [model.offline for model in config.models.values() if upstream in model.upstreams]
    return not (offline and all(offline))

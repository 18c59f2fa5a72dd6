"""From the tables of a TOML file to the values of `schema`, noting everything that does not fit.

It looks at each option alone; what options mean to each other is in `rules`. A value that cannot
be read is noted and replaced by its default, so that the rest of the file is still looked at.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from msgspec import NODEFAULT, Struct, inspect

from gateway.config.forms import Surroundings
from gateway.config.options import Cache, Key, Server
from gateway.config.problems import (
    KeyPath,
    MisfitError,
    Problem,
    did_you_mean,
    echo,
    kind_of,
    nearest,
    quote,
    spell,
    without_echoes,
)
from gateway.config.schema import KINDS, SECTIONS, Config, Model, Upstream, fields
from gateway.config.secret import Digest
from gateway.config.typed import bare, read_value

Table = Mapping[str, Any]
S = TypeVar("S", bound=Struct)

_OTHER_WORDS: Mapping[str, tuple[str, ...]] = {
    "url": ("base_url", "store"),
    "api_base": ("base_url",),
    "endpoint": ("base_url",),
    "key": ("api_key", "secret"),
    "token": ("api_key", "secret"),
    "api_key": ("secret",),
    "type": ("kind",),
    "provider": ("kind",),
    "path": ("model", "store"),
    "file": ("model", "store"),
    "n_gpu_layers": ("gpu_layers",),
    "n_threads": ("threads",),
    "batch_size": ("max_batch",),
    "bind": ("host",),
    "address": ("host",),
    "backend": ("upstreams",),
    "name": ("upstream_model",),
    "max_input_tokens": ("max_tokens",),
    "size": ("memory",),
    "redis": ("store",),
    "redis_url": ("store",),
    "sqlite": ("store",),
    "max_size": ("store_size",),
    "cost": ("price",),
}
"""What other programs call our options."""
_FREELY_NAMED: Iterable[KeyPath] = (("upstreams",), ("models",))
_STAND_INS: Mapping[type, Any] = {Path: Path(), Digest: Digest(b"")}
"""What a required option holds while the errors are collected."""


class Reader:
    """Reads one file's tables; `problems` holds what was wrong with them."""

    def __init__(self, around: Surroundings) -> None:
        self.problems: list[Problem] = []
        self._around = around

    def config(self, raw: Table) -> Config:
        """Return the config; only without problems does it hold what the file says."""
        self._refuse_unknown(raw, SECTIONS, ())
        return Config(
            server=self.struct(Server, raw.get("server", {}), ("server",)),
            cache=self.struct(Cache, raw.get("cache", {}), ("cache",)),
            keys=self._keys(raw.get("keys", [])),
            upstreams={
                name: self._upstream(table, ("upstreams", name))
                for name, table in self._named(raw, "upstreams")
            },
            models={
                name: self.struct(Model, table, ("models", name))
                for name, table in self._named(raw, "models")
            },
        )

    def struct(self, kind: type[S], raw: Any, path: KeyPath) -> S:
        """Return a Struct of this kind from a table, every option of it looked at."""
        if not isinstance(raw, dict):
            self._note(path, f"must be a table, not {kind_of(raw)}")
            return kind(
                **{field.name: _stand_in(field.type) for field in fields(kind) if field.required}
            )
        known = {field.name: field for field in fields(kind)}
        before = len(self.problems)
        self._refuse_unknown(raw, known, path, kind)
        unknown = self.problems[before:]
        values = {}
        for name, field in known.items():
            if name in raw:
                values[name] = self._option(field, raw[name], (*path, name))
            elif field.required:
                values[name] = _stand_in(field.type)
                missing = Problem((*path, name), f"is missing{_example(field)}")
                self.problems.extend(without_echoes([missing], unknown))
        return kind(**values)

    def _keys(self, raw: Any) -> tuple[Key, ...]:
        if not isinstance(raw, list):
            self._note(
                ("keys",), f"must be written [[keys]], once for each key, not as {kind_of(raw)}"
            )
            return ()
        return tuple(self.struct(Key, table, ("keys", place)) for place, table in enumerate(raw))

    def _named(self, raw: Table, section: str) -> Iterable[tuple[str, Any]]:
        tables = raw.get(section, {})
        if isinstance(tables, dict):
            return tables.items()
        self._note((section,), f"must be tables such as [{section}.NAME], not {kind_of(tables)}")
        return ()

    def _upstream(self, raw: Any, path: KeyPath) -> Upstream:
        """Read an upstream by its `kind`; where that is wrong, by what it looks like."""
        if not isinstance(raw, dict):
            return self.struct(KINDS["openai"], raw, path)
        kind = raw.get("kind")
        if isinstance(kind, str) and kind in KINDS:
            return self.struct(KINDS[kind], raw, path)
        guess = _guess_kind(raw)
        if "kind" in raw:
            near = did_you_mean(kind, KINDS) if type(kind) is str else ""
            self._note((*path, "kind"), f'must be "openai" or "llama", not {echo(kind)}{near}')
        else:
            self._note((*path, "kind"), f'is missing; kind = "{guess}" fits what stands here')
        return self.struct(KINDS[guess], {**raw, "kind": guess}, path)

    def _refuse_unknown(
        self, raw: Table, known: Iterable[str], path: KeyPath, kind: type[Struct] | None = None
    ) -> None:
        """Note each name that is not known, with the known one that was probably meant."""
        known = list(known)
        for name, value in raw.items():
            if name not in known:
                near = _near(name, known)
                if near is None and isinstance(value, dict) and path[:1] in _FREELY_NAMED:
                    # [models.gpt-4.1] is a table "1" in a table "gpt-4".
                    whole = spell((path[0], f"{path[1]}.{name}"))
                    self._note(path, f"a name with a dot needs quotes: [{whole}]")
                    continue
                message = f"unknown {'option' if path else 'table'}{_hint(name, near, known, kind)}"
                meant = () if near is None else (*path, near)
                self.problems.append(Problem((*path, name), message, meant=meant))

    def _option(self, field: inspect.Field, raw: Any, path: KeyPath) -> Any:
        try:
            return read_value(field.type, raw, self._around)
        except MisfitError as misfit:
            self._note((*path, *misfit.at), str(misfit))
        return _stand_in(field.type) if field.required else _default(field)

    def _note(self, path: KeyPath, message: str) -> None:
        self.problems.append(Problem(path, message))


def _default(field: inspect.Field) -> Any:
    return field.default_factory() if field.default is NODEFAULT else field.default


def _stand_in(node: inspect.Type) -> Any:
    kind = bare(node)
    if isinstance(kind, inspect.CustomType):
        return _STAND_INS[kind.cls]
    return () if isinstance(kind, inspect.VarTupleType) else ""


def _example(field: inspect.Field) -> str:
    about = field.type.extra_json_schema or {} if isinstance(field.type, inspect.Metadata) else {}
    for example in about.get("examples", ()):
        # JSON writes texts and lists of texts as TOML does.
        return f"; for example {field.name} = {json.dumps(example)}"
    return ""


def _guess_kind(table: Table) -> str:
    kind = table.get("kind")
    near = nearest(kind, KINDS) if isinstance(kind, str) else None
    if near is not None:
        return near
    return "llama" if "model" in table and "base_url" not in table else "openai"


def _near(name: str, known: list[str]) -> str | None:
    for word in _OTHER_WORDS.get(name, ()):
        if word in known:
            return word
    return nearest(name, known)


def _hint(name: str, near: str | None, known: list[str], kind: type[Struct] | None) -> str:
    """Return what to do about an unknown name: the near one, or where it belongs."""
    if near is not None:
        return f"; did you mean {quote(near)}?"
    homes: dict[type[Struct], str] = {
        Server: "[server]",
        Cache: "[cache]",
        Key: "[[keys]]",
        Model: "a model",
    }
    for word, struct in KINDS.items():
        homes[struct] = f'an upstream of kind "{word}"'
    for home, spelled in homes.items():
        if home is not kind and name in {field.name for field in fields(home)}:
            return f"; it belongs to {spelled}"
    return f"; there is {', '.join(known)}"

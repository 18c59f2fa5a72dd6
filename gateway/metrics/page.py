"""The text of `/metrics`, for one process, or for all workers that keep theirs in one directory.

prometheus-client's own takes three times as long for one process, and eight times for two: it sorts
and escapes the labels of every sample anew, and a scrape of 50 models has 8,000 samples. Here the
beginning of a line is made once, and what changes is its number. The text comes in pieces, so that
requests come in between.
"""

import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from sys import intern
from typing import NamedTuple

import msgspec
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

_PIECE = 500
"""Lines that are read or written at a time: that takes about a millisecond."""

Lines = dict[str, float]
"""Numbers, by the beginnings of their lines."""


class _Family(NamedTuple):
    """All lines of one name."""

    name: str
    kind: str
    help: str
    lines: Lines


class _Key(NamedTuple):
    """What the name of a number in a worker's file means."""

    family: str
    help: str
    line: str
    child: str = ""
    """Of a histogram's bucket: the line of the count that it adds to."""


class Page:
    """Writes the text, and remembers how its lines begin."""

    def __init__(self, registry: CollectorRegistry, alike: Iterable[Collector]) -> None:
        """`alike` are the collectors of the registry that say the same in every worker."""
        self._registry = registry
        self._alike = tuple(alike)
        self._begun: dict[tuple[str, ...], str] = {}
        self._keys: dict[str, _Key] = {}

    def of_one(self) -> Iterator[bytes]:
        """Yield the text of what this process has counted."""
        families: dict[str, _Family] = {}
        yield from self._collect(families, self._registry.collect())
        yield from _written(families.values())

    def of_all(self, directory: Path) -> Iterator[bytes]:
        """Yield the text of what all workers have counted that keep their files there."""
        families: dict[str, _Family] = {}
        newest: dict[str, float] = {}
        for file in sorted(directory.glob("*.db")):
            yield from self._read(families, file, newest)
        for collector in self._alike:
            yield from self._collect(families, collector.collect())
        yield from _written(families.values())

    def _collect(self, families: dict[str, _Family], metrics: Iterable[Metric]) -> Iterator[bytes]:
        """Take in what collectors say; yield nothing, now and then."""
        for metric in metrics:
            lines = _family(families, metric.name, metric.type, metric.documentation).lines
            for number, sample in enumerate(metric.samples, start=1):
                # When a series began tells nothing that its rise does not.
                if not sample.name.endswith("_created"):
                    lines[self._line(sample.name, sample.labels)] = sample.value
                if not number % _PIECE:
                    yield b""
            yield b""

    def _line(self, name: str, labels: Mapping[str, str]) -> str:
        key = (name, *labels.values())
        line = self._begun.get(key)
        if line is None:
            line = self._begun[key] = _line(name, labels)
        return line

    def _read(
        self, families: dict[str, _Family], file: Path, newest: dict[str, float]
    ) -> Iterator[bytes]:
        """Take in what a worker has counted; `newest` are the times of the newest of gauges.

        Of a histogram the file has what is in each bucket, in their order.
        """
        kind, mode = file.name.split("_")[:2]
        child, count = "", 0.0
        for number, (name, value, time, _) in enumerate(_values(file), start=1):
            key = self._key(name)
            lines = _family(families, key.family, kind, key.help).lines
            if key.child:
                count = count + value if key.child == child else value
                child = key.child
                lines[key.line] = lines.get(key.line, 0.0) + count
                if key.line.endswith('le="+Inf"}'):
                    lines[child] = lines.get(child, 0.0) + count
            elif kind == "gauge":
                _take_gauge(lines, key.line, value, mode, time, newest)
            else:
                lines[key.line] = lines.get(key.line, 0.0) + value
            if not number % _PIECE:
                yield b""

    def _key(self, name: str) -> _Key:
        key = self._keys.get(name)
        if key is None:
            key = self._keys[name] = _read_key(name)
        return key


def _values(file: Path) -> Iterator[tuple[str, float, float, int]]:
    try:
        yield from MmapedDict.read_all_values_from_file(str(file))  # type: ignore[no-untyped-call]
    except (FileNotFoundError, struct.error):
        return  # of a worker that has ended since, or is just opening it


def _read_key(name: str) -> _Key:
    parts = msgspec.json.decode(name, type=tuple[str, str, dict[str, str], str])
    # Thousands of them are kept, of some dozen families.
    family, series, labels, help_ = intern(parts[0]), parts[1], parts[2], intern(parts[3])
    if "le" not in labels:
        return _Key(family, help_, _line(series, labels))
    le = labels.pop("le")
    child = _line(f"{family}_count", labels)
    return _Key(family, help_, _line(series, {**labels, "le": le}), child)


def _take_gauge(
    lines: Lines, line: str, value: float, mode: str, time: float, newest: dict[str, float]
) -> None:
    if line not in lines or (mode == "livemostrecent" and time > newest[line]):
        lines[line], newest[line] = value, time
    elif mode == "livesum":
        lines[line] += value
    elif mode == "livemax":
        lines[line] = max(lines[line], value)
    elif mode == "livemin":
        lines[line] = min(lines[line], value)


def _family(families: dict[str, _Family], name: str, kind: str, text: str) -> _Family:
    family = families.get(name)
    if family is None:
        family = families[name] = _Family(name, kind, text, {})
    return family


def _line(name: str, labels: Mapping[str, str]) -> str:
    if not labels:
        return name
    # `le` last, so that it is found there.
    names = sorted(labels, key=lambda label: (label == "le", label))
    said = ",".join(f'{label}="{_escaped(labels[label])}"' for label in names)
    return f"{name}{{{said}}}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _written(families: Iterable[_Family]) -> Iterator[bytes]:
    piece: list[str] = []
    for family in families:
        if not family.lines:
            continue
        name = f"{family.name}_total" if family.kind == "counter" else family.name
        text = family.help.replace("\\", r"\\").replace("\n", r"\n")
        piece.append(f"# HELP {name} {text}\n# TYPE {name} {family.kind}\n")
        for line, value in family.lines.items():
            piece.append(f"{line} {floatToGoString(value)}\n")  # type: ignore[no-untyped-call]
            if len(piece) >= _PIECE:
                yield "".join(piece).encode()
                piece = []
    yield "".join(piece).encode()

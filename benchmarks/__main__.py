"""The command: python -m benchmarks [NAME...] [--quick].

Everything in one run, interleaved; the figures are medians over the rounds. Rates move from
machine to machine: read the ratios and the CPU time. The server under test has one core to itself
where the system can pin, the load and the fake upstream the others; local models have all.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks import (
    chat_hits,
    chat_local,
    hits,
    local,
    metrics,
    misses,
    relay,
    scaling,
    start,
    stores,
)
from benchmarks.load import LoadError
from benchmarks.progress import Say
from benchmarks.report import Part, heading
from benchmarks.rounds import Plan
from benchmarks.servers import StartError, split_cores
from benchmarks.setting import Setting

Run = Callable[[Setting, Path], Part | None]


def main(words: Sequence[str]) -> int:
    """Run what was asked for; return the exit status: 1 if anything could not be measured."""
    parts: Mapping[str, Sequence[Run]] = {
        "misses": [misses.run],
        "hits": [hits.run],
        "stores": [stores.run],
        "local": [local.run],
        "chat": [relay.run, chat_hits.run, chat_local.run],
        "start": [start.run],
        "metrics": [metrics.run, metrics.scrape],
        "scaling": [scaling.run],
    }
    parser = _arguments(list(parts))
    asked = parser.parse_args(words)
    if unknown := set(asked.names) - set(parts):
        parser.error(f"there is no {', '.join(sorted(unknown))}; choose from {', '.join(parts)}")
    say = Say()
    core, others = split_cores()
    plan = Plan(1, 0.4) if asked.quick else Plan(asked.rounds, asked.seconds)
    with_peers = not (asked.quick or asked.no_peers)
    setting = Setting(plan, say, with_peers, core, others)
    done: list[Part] = []
    failed = False
    runs = [(name, run) for name in asked.names or parts for run in parts[name]]
    for name, run in runs:
        try:
            with tempfile.TemporaryDirectory() as directory:
                part = run(setting, Path(directory))
        except (StartError, LoadError) as error:
            say.note(f"{name} could not be measured: {error}")
            failed = True
        else:
            done += [part] if part else []
    say.done()
    if asked.markdown:
        length = f"{plan.rounds} rounds of {plan.seconds:g} s"
        pinned = "" if core else ["no pinning to cores here"]
        command = " ".join(["scripts/bench", *words])
        print(heading(command, length, setting.versions, [*pinned, *say.notes]))
    print("\n".join(part.text() for part in done))
    return int(failed)


def _arguments(names: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="of " + ", ".join(names))
    parser.add_argument("--quick", action="store_true", help="one tiny round without peers")
    parser.add_argument("--rounds", type=int, default=5, help="rounds (default 5)")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a round (default 3)")
    parser.add_argument("--no-peers", action="store_true", help="neither install nor run peers")
    parser.add_argument("--markdown", action="store_true", help="with machine, date and versions")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

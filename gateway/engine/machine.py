"""What this machine, or the container around the process, gives: cores and memory.

Reads the kernel's own files, whose roots are parameters. It does not know what they are for.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc")
CGROUP = Path("/sys/fs/cgroup")


def usable_cores(proc: Path = PROC, cgroup: Path = CGROUP) -> int:
    """Return how many cores may be used: affinity, and a container's CPU quota rounded up."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    for group in _groups(proc, cgroup):
        quota, _, period = _words(group / "cpu.max").partition(" ")
        if quota.isdecimal() and period.isdecimal() and int(period):
            cores = min(cores, math.ceil(int(quota) / int(period)))
    return max(1, cores)


def available_memory(proc: Path = PROC, cgroup: Path = CGROUP) -> int | None:
    """Return how many bytes can still be used, or None where nobody says.

    Pages that only cache files count as free, on the machine and in the container alike.
    """
    bounds = [bound for group in _groups(proc, cgroup) if (bound := _left(group)) is not None]
    machine = _fields(proc / "meminfo").get("MemAvailable:")
    if machine is not None:
        bounds.append(machine * 1024)
    elif not bounds and hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        # macOS tells only what is built in.
        bounds.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(bounds, default=None)


def resident_memory(proc: Path = PROC) -> int:
    """Return the bytes of this process that are in memory; 0 where the kernel does not say."""
    words = _words(proc / "self" / "statm").split()
    return int(words[1]) * os.sysconf("SC_PAGE_SIZE") if len(words) > 1 else 0


def _groups(proc: Path, cgroup: Path) -> Iterator[Path]:
    """Yield this process's cgroup (version 2) and those around it: each may set a bound."""
    lines = _words(proc / "self" / "cgroup").splitlines()
    own = next((line[3:] for line in lines if line.startswith("0::")), None)
    if own is None:
        return
    group = cgroup / own.lstrip("/")
    while group != cgroup.parent:
        yield group
        group = group.parent


def _left(group: Path) -> int | None:
    limit, used = _words(group / "memory.max"), _words(group / "memory.current")
    if not limit.isdecimal() or not used.isdecimal():
        return None
    stat = _fields(group / "memory.stat")
    cached = stat.get("inactive_file", 0) + stat.get("active_file", 0)
    return max(0, int(limit) - int(used) + cached)


def _fields(path: Path) -> dict[str, int]:
    """Read lines of a name and a number."""
    rows = (line.split() for line in _words(path).splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdecimal()}


def _words(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""

"""Trouble with the disk under load: every request succeeds, and nothing that was stored is lost.

    python -m tests.heavy.disks [--seconds 4]

A gateway keeps its vectors in a SQLite file whose disk is full, that is deleted, locked and more.
Afterwards another gateway finds every vector in that file.
"""

import argparse
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from tests.asking import open_asker
from tests.draws import Draws
from tests.heavy.trial import TITLES, Report, Trial, Trouble, assert_all_agree, judge, tell
from tests.processes import gateway_process
from tests.running import one_model
from tests.upstream import serve

WIDTH = 64
SIZE = 64 * 2**20
"""Bytes of the disk."""


@dataclass
class Disk:
    """Where the file of a store is."""

    root: Path
    pid: int = 0
    """The gateway that uses it."""
    lock: list[sqlite3.Connection] = field(default_factory=list)

    @property
    def path(self) -> Path:
        """The file."""
        return self.root / "store" / "cache.db"

    def fill(self) -> None:
        """Leave no room on the disk, nor in the log for what could be written over."""
        with closing(sqlite3.connect(self.path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        with suppress(OSError), (self.root / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(bytes(4096))

    def free(self) -> None:
        """Give the room back."""
        (self.root / "filler").unlink()

    def limit(self, most: int) -> None:
        """Let the gateway write no file beyond so many bytes."""
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))

    def remove(self) -> None:
        """Remove the directory and all that is in it."""
        shutil.rmtree(self.path.parent)

    def block(self) -> None:
        """Put a file where the directory was."""
        self.path.parent.rename(self.root / "aside")
        self.path.parent.touch()

    def unblock(self) -> None:
        """Put the directory back."""
        self.path.parent.unlink()
        (self.root / "aside").rename(self.path.parent)

    def hold(self) -> None:
        """Begin to write to the file, as another program would, and do not end it."""
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        connection.execute("BEGIN IMMEDIATE")
        self.lock.append(connection)

    def let_go(self) -> None:
        """End it."""
        self.lock.pop().close()


ANYWHERE: list[Trouble[Disk]] = [
    Trouble("no file may grow", lambda at: at.limit(0), lambda at: at.limit(-1)),
    Trouble("directory removed", Disk.remove, keeps=False, unshared=False),
    Trouble("file deleted", lambda at: at.path.unlink(), keeps=False, unshared=False),
    Trouble("a file in the way", Disk.block, Disk.unblock),
    Trouble("locked", Disk.hold, Disk.let_go),
]
ON_ITS_OWN: list[Trouble[Disk]] = [Trouble("disk full", Disk.fill, Disk.free)]
"""What befalls a disk that has nothing else on it."""


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Mount a small disk there, where that is allowed; yields whether it was."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "none", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        yield False
        return
    try:
        yield True
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


async def run(folder: Path, troubles: Sequence[Trouble[Disk]], seconds: float) -> Sequence[Report]:
    """Go through these troubles, each so long; raises AssertionError."""
    fake = Draws().upstream(WIDTH)
    disk = Disk(folder)
    with serve(fake):
        toml = one_model(fake.base_url, rest=f'[cache]\nstore = "sqlite://{disk.path}"')
        with gateway_process(toml) as gateway:
            disk.pid = gateway.pid
            async with open_asker(gateway.base_url) as asker:
                trial = Trial([gateway], [asker], disk)
                reports = await trial.go_through_all(troubles, seconds)
                with gateway_process(toml) as newcomer:
                    async with open_asker(newcomer.base_url) as other:
                        await assert_all_agree([asker, other], trial.load.texts)
    return reports


def run_all(seconds: float) -> Sequence[Report]:
    """Go through everything that can befall a disk here."""
    reports: list[Report] = []
    with tempfile.TemporaryDirectory(prefix="gw-") as made:
        reports += uvloop.run(run(Path(made), ANYWHERE, seconds))
    with tempfile.TemporaryDirectory(prefix="gw-") as made, small_disk(Path(made)) as mounted:
        if mounted:
            reports += uvloop.run(run(Path(made), ON_ITS_OWN, seconds))
        else:
            sys.stdout.write("No disk can be mounted here, so none was filled.\n")
    return reports


def main() -> None:
    """Run the whole of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4)
    asked = parser.parse_args()
    reports = run_all(asked.seconds)
    tell(TITLES, [report.figures for report in reports])
    judge(reports)


if __name__ == "__main__":
    main()

"""Cores and memory are read from the kernel's files as a container sees them."""

import logging
import os
import sys

import pytest

from gateway.engine.log import Log, LogHandler
from gateway.engine.machine import available_memory, resident_memory, usable_cores
from gateway.engine.settings import decode_settings

MIB = 1 << 20


@pytest.fixture
def kernel(tmp_path):
    """Return a function that writes files of a made-up kernel; its roots are the result."""

    def write(**files):
        for name, text in files.items():
            path = tmp_path / name.replace("__", "/").replace("_dot_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path / "proc", tmp_path / "cg"

    return write


def test_a_containers_memory_is_its_limit_less_what_it_uses(kernel):
    """Pages that only cache files count as free; the tightest group around the process holds."""
    roots = kernel(
        proc__meminfo=f"MemTotal: 1 kB\nMemAvailable: {4096 * 1024} kB\n",
        proc__self__cgroup="0::/pod/box\n",
        cg__pod__box__memory_dot_max=str(1000 * MIB),
        cg__pod__box__memory_dot_current=str(900 * MIB),
        cg__pod__box__memory_dot_stat=f"anon 1\ninactive_file {300 * MIB}\nactive_file {MIB}\n",
        cg__pod__memory_dot_max=str(2000 * MIB),
        cg__pod__memory_dot_current=str(1900 * MIB),
        cg__memory_dot_max="max",
    )
    assert 100 * MIB == available_memory(*roots)


def test_without_a_container_memory_is_what_the_machine_has_left(kernel):
    """The kernel's own estimate."""
    roots = kernel(proc__meminfo="MemAvailable: 2048 kB\n", proc__self__cgroup="1:memory:/x\n")
    assert 2 * MIB == available_memory(*roots)


def test_a_machine_that_does_not_say_tells_what_is_built_in(kernel):
    """As macOS."""
    found = available_memory(*kernel())
    assert os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") == found


def test_cores_are_bounded_by_affinity_and_quota(kernel):
    """A quota of one and a half cores is worth two threads; `max` is no bound."""
    free = usable_cores(*kernel(proc__self__cgroup="0::/a\n", cg__a__cpu_dot_max="max 100000"))
    assert len(os.sched_getaffinity(0)) == free
    bounded = usable_cores(*kernel(cg__a__cpu_dot_max="50000 100000"))
    assert 1 == bounded


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_real_machine_answers():
    """This very process has memory and cores."""
    memory = available_memory()
    assert memory is not None
    assert memory > MIB
    assert usable_cores() >= 1
    assert resident_memory() > MIB


def test_a_log_line_is_one_json_object(tmp_path):
    """Below the level nothing is written."""
    path = tmp_path / "log"
    with path.open("wb") as file:
        log = Log("warning", fd=file.fileno())
        log.write("info", "quiet")
        log.write("error", "loud", message="a\nb", count=2)
    assert '{"level":"error","event":"loud","message":"a\\nb","count":2}\n' == path.read_text()


def test_a_log_that_nobody_reads_is_no_error(tmp_path):
    """The parent may be gone."""
    reader, writer = os.pipe()
    os.close(reader)
    Log(fd=writer).write("error", "unheard")
    os.close(writer)


def test_an_exception_in_the_server_is_logged_without_its_words(tmp_path):
    """They could hold a text; type and place do not."""
    path = tmp_path / "log"
    with path.open("wb") as file:
        handler = LogHandler(Log(fd=file.fileno()))
        logger = logging.Logger("server")  # noqa: LOG001 - one that no other test shares
        logger.addHandler(handler)
        try:
            raise ValueError("canary")
        except ValueError:
            logger.exception("it failed: %s", "canary")
        logger.critical("it is down")
        logger.info("not written")
    lines = path.read_text().splitlines()
    assert 2 == len(lines)
    assert "canary" not in lines[0]
    assert "ValueError" in lines[0]
    assert __file__ in lines[0]
    assert '"level":"error"' in lines[1]
    assert "it is down" in lines[1]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"", "truncated"),
        (b"{}", "missing required field"),
        (b'{"socket":"s","model":"m","journal":"j","journal_key":"zz"}', "hex"),
        (b'{"socket":"s","model":"m","journal":"j","journal_key":""}', "64 bytes"),
        (b'{"socket":"s","model":"m","journal":"j","journal_key":"00","threads":0}', "threads"),
    ],
)
def test_settings_at_fault_are_named(line, said):
    """The parent gets to read which."""
    with pytest.raises(ValueError, match=said):
        decode_settings(line)

"""SECURITY.md says what is so: its options, figures and places are the code's."""

import re

import pytest

from gateway.backends.body import _FREELY, _MOST_FOLDED
from gateway.chat.recording import LONGEST
from gateway.config.options import Server
from gateway.config.upstreams import OpenAIUpstream
from gateway.edge.heads import MOST_FIELDS
from gateway.edge.patience import KEEP_ALIVE, SLOWEST
from gateway.edge.room import PATIENCE
from gateway.limits import TOKENS_PER_REQUEST
from gateway.models import MAX_ANSWER
from gateway.schemas import MAX_INPUTS
from gateway.sse import LARGEST_EVENT
from tests.processes import ROOT

PAGE = (ROOT / "SECURITY.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.partition("## Bounds")[2].splitlines()
    if line.startswith("| ")
]
SERVER, UPSTREAM = Server(), OpenAIUpstream(base_url="")
MIB, KIB = 2**20, 2**10


def test_every_option_is_one():
    """Of the server, or of an upstream."""
    named = [name for row in ROWS for name in re.findall(r"`(\w+)`", row[2])]
    assert len(named) > 10
    known = {*Server.__struct_fields__, *OpenAIUpstream.__struct_fields__}
    assert [name for name in named if name not in known] == []


def test_every_place_is_there():
    """Files of the repository that are linked or named."""
    named = re.findall(r"\]\(([\w./]+)\)|`(tests/[\w/.]+)`", PAGE)
    assert [
        place for pair in named for place in pair if place and not (ROOT / place).exists()
    ] == []


@pytest.mark.parametrize(
    ("what", "figures"),
    [
        ("address", [f"`{SERVER.host}`"]),
        ("headers", [f"{SERVER.max_header // KIB} KiB, {MOST_FIELDS} fields"]),
        ("headers", [f"{SERVER.header_timeout:.0f} s"]),
        ("body", [f"{SERVER.max_body // MIB} MiB", f"{SLOWEST // 1000} kB a second"]),
        ("body", [f"each {SERVER.body_timeout:.0f} s"]),
        ("large bodies", [{5: "five"}[int(PATIENCE)] + " seconds"]),
        ("idle", [f"{KEEP_ALIVE:.0f} s"]),
        ("inputs", [f"{MAX_INPUTS:,}", f"{TOKENS_PER_REQUEST:,} tokens"]),
        ("a request", [f"{SERVER.request_timeout:.0f} s", f"{SERVER.chat_timeout / 60:.0f} min"]),
        ("an upstream", [f"{MAX_ANSWER // MIB} MiB", f"{_MOST_FOLDED} times"]),
        ("an upstream", [f"{LARGEST_EVENT // MIB} MiB", f"{LONGEST // MIB} MiB"]),
        ("calls", [f"{UPSTREAM.concurrency}, and {UPSTREAM.max_queue:,}"]),
    ],
)
def test_every_figure_is_the_codes(what, figures):
    """Whoever changes one changes the page."""
    rows = [row for row in ROWS if row[0].startswith(what)]
    assert rows
    for figure in figures:
        assert figure in rows[0][1]
    assert MIB == _FREELY

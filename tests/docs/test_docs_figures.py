"""Figures that the manual tells are those that were measured."""

import re

from tests.docs.pages import page
from tests.processes import ROOT


def test_the_comparison_tells_what_was_measured() -> None:
    """Each rate stands in the benchmarks' results."""
    [table] = [t for t in page("docs/comparison.md").tables if "requests a second" in t[0][0]]
    rates = [rate for row in table[1:] for rate in row[1:]]
    assert len(rates) > 8
    results = (ROOT / "benchmarks" / "RESULTS.md").read_text()
    measured = set(re.findall(r"[\d,.]+", results))
    assert [rate for rate in rates if rate not in measured] == []

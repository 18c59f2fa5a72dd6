"""Reloads and restarts under load, some of them; see tests.heavy.changes."""

import asyncio

import pytest

from tests.heavy.changes import run


@pytest.mark.parametrize("workers", [1, 2])
def test_whatever_is_accepted_is_answered_by_one_config(workers: int):
    """None fails, no stream stops in the middle, and nobody meets two configs."""
    clients, _ = asyncio.run(run(reloads=8, restarts=2, workers=workers, seed=workers))
    assert clients.failures == []
    assert clients.counts["hit"]
    assert clients.counts["other config's key"]
    assert clients.counts["streams"]

"""Each upstream fault a few times, over both clients: see tests.heavy.faults for ten thousand."""

import pytest

from tests.heavy import faults
from tests.heavy.faulty.kinds import kinds

BUSY = 3.0
"""Seconds that a busy machine may add; what hangs takes longer."""


@pytest.mark.parametrize("transport", faults.TRANSPORTS)
def test_every_fault_has_its_error_and_nothing_wrong_stays(transport):
    """P1, P8: no answer but the true one, no error but the documented one, none that hangs."""
    outcomes = faults.run(transport, 0, seed=1, deadline=2.0, late=BUSY)
    everything = {
        kind
        for chat, stream in ((False, False), (True, False), (True, True))
        for kind in kinds(chat=chat, stream=stream)
    }
    assert len(everything) > 90
    assert outcomes.faults.keys() == everything
    assert outcomes.compared > 300

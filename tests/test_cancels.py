"""A small crowd of clients that leave: see tests.heavy.cancels for the long run."""

from tests.heavy import cancels


def test_clients_that_leave_leave_nothing_behind(tmp_path):
    """No task, flight, connection or descriptor; and those who stay get what they asked for."""
    outcome = cancels.run(tmp_path, 600, seed=1)
    assert sum(outcome.left.values()) > 200
    assert outcome.noticed > 50
    assert outcome.vectors > 200

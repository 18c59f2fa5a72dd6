"""The fair queue loses nothing, starves nobody, and lets the short overtake the long."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.engine.fair import FairQueue, Flow

COSTS = st.lists(st.integers(1, 500), min_size=1, max_size=12)


def flow(name, costs):
    return Flow([(name, n) for n in range(len(costs))], costs)


def drain(queue):
    while (found := queue.take()) is not None:
        yield found


@given(st.lists(COSTS, max_size=8), st.data())
def test_every_job_is_taken_once_and_in_order(shapes, data):
    """Whatever arrives when, each flow's jobs come out once, first to last."""
    queue = FairQueue()
    expected, taken = {}, {}
    for name, costs in enumerate(shapes):
        queue.put(flow(name, costs))
        expected[name] = list(range(len(costs)))
        for _ in range(data.draw(st.integers(0, 5))):
            if (found := queue.take()) is not None:
                which, position = found[0].jobs[found[1]]
                taken.setdefault(which, []).append(position)
    for found, at in drain(queue):
        which, position = found.jobs[at]
        taken.setdefault(which, []).append(position)
    assert expected == taken
    assert queue.take() is None


@given(st.lists(COSTS, min_size=2, max_size=6))
def test_flows_with_work_left_get_equal_shares(shapes):
    """While two flows both wait, what each has got differs by no more than two of their jobs."""
    queue = FairQueue()
    flows = [flow(name, costs) for name, costs in enumerate(shapes)]
    for each in flows:
        queue.put(each)
    got = [0] * len(flows)
    largest = max(max(costs) for costs in shapes)
    for found, at in drain(queue):
        name, _ = found.jobs[at]
        got[name] += found.costs[at]
        backlogged = [got[name] for name, each in enumerate(flows) if each.waiting]
        assert max(backlogged, default=0) - min(backlogged, default=0) <= 2 * largest


@given(COSTS, st.integers(1, 500))
def test_a_stream_of_newcomers_does_not_starve_a_batch(costs, newcomer):
    """With a new one-job request after each take, a batch still gets half of the work."""
    queue = FairQueue()
    batch = flow("batch", costs)
    queue.put(batch)
    queue.put(flow("new", [newcomer]))
    spent = 0
    while batch.waiting:
        found, at = queue.take()
        if found.jobs[at][0] == "new":
            spent += newcomer
            queue.put(flow("new", [newcomer]))
    assert spent <= sum(costs) + newcomer


def test_a_short_text_overtakes_a_long_batch():
    """It is next, although hundreds were there before."""
    queue = FairQueue()
    queue.put(flow("batch", [100] * 500))
    assert "batch" == queue.take()[0].jobs[0][0]
    queue.put(flow("short", [5]))
    assert "short" == queue.take()[0].jobs[0][0]


@given(st.lists(COSTS, min_size=1, max_size=6), st.data())
def test_a_dropped_flow_is_not_taken_again(shapes, data):
    """What was dropped is counted once and never comes out; the rest does."""
    queue = FairQueue()
    flows = [flow(name, costs) for name, costs in enumerate(shapes)]
    for each in flows:
        queue.put(each)
    for _ in range(data.draw(st.integers(0, 10))):
        queue.take()
    victim = data.draw(st.sampled_from(flows))
    waiting = [each.waiting for each in flows]
    assert victim.waiting == queue.drop(victim)
    assert 0 == queue.drop(victim)
    left = [each.jobs[at][0] for each, at in drain(queue)]
    name = flows.index(victim)
    assert name not in left
    assert sum(waiting) - waiting[name] == len(left)

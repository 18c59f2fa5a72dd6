"""What Prometheus is told of drift."""

from prometheus_client import CollectorRegistry

from gateway.cache.facts import Checked
from gateway.metrics.drift import RESULTS, DriftMetrics
from gateway.metrics.tally import Tally

NAMES = ("distance", "noise", "detected", "last_check_timestamp_seconds")


def told():
    """Return the metrics, and how to read those of the model `m`."""
    registry, tally = CollectorRegistry(), Tally()
    metrics = DriftMetrics(registry, tally)

    def read():
        tally.flush()
        gauges = [registry.get_sample_value(f"gateway_drift_{n}", {"model": "m"}) for n in NAMES]
        labels = ({"model": "m", "result": result} for result in RESULTS)
        return gauges, [registry.get_sample_value("gateway_drift_checks_total", x) for x in labels]

    return metrics, read


def test_every_result_is_there_before_the_first_round():
    """Prometheus sees a rise only where there was something before."""
    metrics, read = told()
    assert read() == ([None] * 4, [None] * 4)
    metrics.watched("m")
    assert read() == ([None] * 4, [0] * 4)
    for result in ("steady", "noise", "noise", "drift"):
        metrics.checked("m", result)
    assert read()[1] == [1, 2, 1, 0]


def test_how_a_model_stands_is_shown_until_nothing_is_known_of_it():
    """Drift is 1, anything else 0; of one that was purged, or is gone, all is 0."""
    metrics, read = told()
    metrics.stand({"m": Checked(5.0, "drift", 0.5, 0.1)})
    assert read()[0] == [0.5, 0.1, 1, 5.0]
    for verdict in ("steady", "noise"):
        metrics.stand({"m": Checked(6.0, verdict, 0.05, 0.1)})
        assert read()[0] == [0.05, 0.1, 0, 6.0]
    metrics.stand({"other": Checked(7.0, "noise", 0.05, 0.1)})
    assert read()[0] == [0, 0, 0, 0]

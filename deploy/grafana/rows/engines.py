"""Models that run here."""

from panels import Panel, graph
from queries import events, now, quantile, rate


def panels() -> list[Panel]:
    """Return the panels, in the order in which they are read."""
    return [
        graph(
            "Texts decoded",
            "By local models.",
            "cps",
            {"{{engine}}": rate("gateway_engine_texts_total", by="engine")},
        ),
        graph(
            "Tokens decoded",
            "By local models, of texts and prompts.",
            "cps",
            {"{{engine}}": rate("gateway_engine_tokens_total", by="engine")},
        ),
        graph(
            "Contexts",
            "Those that decode, and texts that wait for one.",
            "short",
            {
                "{{engine}} busy": now("gateway_engine_contexts_busy", by="engine"),
                "{{engine}} waiting": now("gateway_engine_queue_depth", by="engine"),
            },
        ),
        graph(
            "Wait for a context",
            "99 in 100 requests wait for less, until the first of their texts is taken.",
            "s",
            {"{{engine}}": quantile(0.99, "gateway_engine_queue_wait_seconds", by="engine")},
        ),
        graph(
            "Memory of engines",
            "Resident, weights that are mapped from the file included.",
            "bytes",
            {"{{engine}}": now("gateway_engine_resident_bytes", by="engine")},
        ),
        graph(
            "Restarts of engines",
            "Engines that ended and were started again.",
            "short",
            {"{{engine}}": events("gateway_engine_restarts_total", by="engine")},
        ),
    ]

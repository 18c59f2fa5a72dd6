"""Models and their upstreams: who is slow, who fails, who has changed."""

from panels import BAD, FAIR, GOOD, Panel, graph, states
from queries import ASKED, MODEL, events, now, quantiles, rate


def panels() -> list[Panel]:
    """Return the panels, in the order in which they are read."""
    return [
        graph(
            "Requests by model",
            "Names of the config; other: names that it does not have.",
            "reqps",
            {"{{model}}": rate("gateway_requests_total", *ASKED, by="model")},
        ),
        graph(
            "Calls to upstreams",
            "By outcome; a call that is made again counts again.",
            "reqps",
            {
                "{{upstream}} {{outcome}}": rate(
                    "gateway_upstream_requests_total", by="upstream, outcome"
                )
            },
        ),
        graph(
            "Duration of calls",
            "Of one call to an upstream.",
            "s",
            quantiles("upstream", "gateway_upstream_duration_seconds"),
            log=True,
        ),
        states(
            "Circuits",
            "Whether an upstream is asked; the worst that an instance thinks of it.",
            {"{{upstream}}": now("gateway_circuit_state", by="upstream", how="max")},
            {0: ("asked", GOOD), 1: ("tried", FAIR), 2: ("left alone", BAD)},
        ),
        graph(
            "At work and waiting",
            "Calls that an upstream works on, and those that wait for a place.",
            "short",
            {
                "{{upstream}} at work": now("gateway_upstream_in_flight", by="upstream"),
                "{{upstream}} waiting": now("gateway_upstream_queue_depth", by="upstream"),
            },
        ),
        graph(
            "Retries and failovers",
            "Calls that were made again, and those that went on to another upstream.",
            "reqps",
            {
                "{{upstream}} again after {{reason}}": rate(
                    "gateway_upstream_retries_total", by="upstream, reason"
                ),
                "{{from}} to {{to}}": rate(
                    "gateway_upstream_failovers_total", MODEL, by="from, to"
                ),
            },
        ),
        graph(
            "Left of rate limits",
            "What upstreams last said may still be asked of them.",
            "short",
            {
                "{{upstream}} {{kind}}": now(
                    "gateway_upstream_ratelimit_remaining", by="upstream, kind", how="min"
                )
            },
            log=True,
        ),
        graph(
            "Answers refused",
            "Answers of upstreams that were not served: a wrong count, order or width of vectors, "
            "numbers that are not finite, only zeros, out of their space, or unreadable.",
            "cps",
            {
                "{{upstream}} {{reason}}": rate(
                    "gateway_vectors_refused_total", by="upstream, reason"
                )
            },
        ),
        graph(
            "Lengths of vectors as sent",
            "Before they are brought to length 1. A model that normalizes sends 1; one that changes"
            " its habit has changed.",
            "short",
            quantiles("upstream", "gateway_vector_norm", low=0.01),
        ),
        states(
            "Drift found",
            "Whether a model makes other vectors of fixed texts than it used to.",
            {"{{model}}": now("gateway_drift_detected", MODEL, by="model", how="max")},
            {0: ("the same", GOOD), 1: ("drifted", BAD)},
        ),
        graph(
            "Drift",
            "How far those texts are from what is kept of them (1 - cosine), and how far the "
            "model's own answers are from each other.",
            "short",
            {
                "{{model}} distance": now("gateway_drift_distance", MODEL, by="model", how="max"),
                "{{model}} noise": now("gateway_drift_noise", MODEL, by="model", how="max"),
            },
        ),
        graph(
            "Alike in their space",
            "Least cosine of an upstream's vectors to those of the space that it is declared for.",
            "short",
            {
                "{{space}} {{upstream}}": now(
                    "gateway_space_similarity", by="space, upstream", how="min"
                )
            },
        ),
        graph(
            "Chats by source",
            "Where answers came from.",
            "reqps",
            {"{{result}}": rate("gateway_chat_answers_total", MODEL, by="result")},
            stacked=True,
        ),
        graph(
            "Time to the first chunk",
            "Of streamed chats.",
            "s",
            quantiles("result", "gateway_chat_first_chunk_seconds", MODEL),
            log=True,
        ),
        graph(
            "New fingerprints",
            "Values of system_fingerprint that were never seen before: something changed there.",
            "short",
            {"{{model}}": events("gateway_new_fingerprints_total", MODEL, by="model")},
        ),
    ]

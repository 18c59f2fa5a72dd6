"""The cache: is it there, is it quick, is it full."""

from panels import BAD, GOOD, Panel, graph, states
from queries import now, quantile, rate


def panels() -> list[Panel]:
    """Return the panels, in the order in which they are read."""
    return [
        states(
            "Stores",
            "Whether all instances can use a store.",
            {"{{tier}}": now("gateway_store_up", by="tier", how="min")},
            {1: ("there", GOOD), 0: ("away", BAD)},
        ),
        graph(
            "Operations of stores",
            "By result: ok, or why not.",
            "ops",
            {
                "{{tier}} {{operation}} {{result}}": rate(
                    "gateway_cache_operations_total", by="tier, operation, result"
                )
            },
        ),
        graph(
            "Duration of operations",
            "99 in 100 take less.",
            "s",
            {
                "{{tier}} {{operation}}": quantile(
                    0.99, "gateway_cache_operation_duration_seconds", by="tier, operation"
                )
            },
            log=True,
        ),
        graph(
            "Entries",
            "In memory, over all workers; in a store, as it counts them.",
            "short",
            {"{{tier}}": _here_and_there("entries")},
        ),
        graph(
            "Bytes",
            "In memory, over all workers; in a store, as it counts them.",
            "bytes",
            {"{{tier}}": _here_and_there("bytes")},
        ),
        graph(
            "Evictions",
            "Entries that made room for others; and entries that were damaged, and replaced.",
            "cps",
            {
                "{{tier}}": rate("gateway_cache_evictions_total", by="tier"),
                "{{tier}} damaged": rate("gateway_cache_corrupt_entries_total", by="tier"),
            },
        ),
    ]


def _here_and_there(what: str) -> str:
    # Each worker has a memory of its own; a store is one, whoever counts it.
    memory = now(f"gateway_cache_{what}", by="tier")
    return f"{memory} or {now(f'gateway_store_{what}', by='tier', how='max')}"

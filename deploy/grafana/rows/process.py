"""The processes of the gateway, and their config."""

from panels import BAD, FAIR, Panel, graph, number
from queries import events, now, of, quantiles, rate


def panels() -> list[Panel]:
    """Return the panels, in the order in which they are read."""
    started = now("gateway_process_start_time_seconds", how="min")
    return [
        number(
            "Workers", "Processes that answer, over all instances.", "short", now("gateway_workers")
        ),
        number("Runs since", "The oldest of them.", "dateTimeFromNow", f"1000 * {started}"),
        number(
            "Configs",
            "Different configs in effect: more than one while they are being changed.",
            "short",
            f"count(count by (hash) ({of('gateway_config_info')}))",
            limits={2: FAIR},
        ),
        number(
            "Versions",
            "Different versions of the gateway at work.",
            "short",
            f"count(count by (version) ({of('gateway_build_info')}))",
            limits={2: FAIR},
        ),
        number(
            "Reloads refused",
            "Instances whose last reload of the config failed: the old one is in effect.",
            "short",
            f"count({of('gateway_config_last_reload_success')} == 0) or vector(0)",
            limits={1: BAD},
        ),
        number(
            "Stopping",
            "Instances that see out what runs.",
            "short",
            now("gateway_draining"),
            limits={1: FAIR},
        ),
        graph(
            "Lateness of the event loop",
            "How much later than asked for it comes back: what every answer is late by.",
            "s",
            quantiles("instance", "gateway_event_loop_lag_seconds"),
            log=True,
        ),
        graph(
            "CPU",
            "Cores in use by the workers, engines not counted.",
            "short",
            {"{{instance}}": rate("gateway_process_cpu_seconds_total", by="instance")},
        ),
        graph(
            "Memory",
            "Resident, of all workers of an instance.",
            "bytes",
            {"{{instance}}": now("gateway_process_resident_bytes", by="instance")},
        ),
        graph(
            "Requests under way",
            "That have begun and not ended.",
            "short",
            {"{{operation}}": now("gateway_requests_in_flight", by="operation")},
        ),
        graph(
            "Open files",
            "And sockets, of all workers of an instance.",
            "short",
            {"{{instance}}": now("gateway_process_open_fds", by="instance")},
        ),
        graph(
            "Reloads",
            "Of the config, by result.",
            "short",
            {"{{result}}": events("gateway_config_reloads_total", by="result")},
        ),
    ]

"""What the gateway is for: what upstreams were not asked, and how quick that is."""

from panels import BAD, FAIR, Panel, graph, number
from queries import ASKED, MODEL, quantile, quantiles, rate, risen

_REQUESTS = "gateway_requests_total"
_TEXTS = "gateway_inputs_total"
_DOLLARS = "gateway_cost_usd_total"
_SECONDS = "gateway_request_duration_seconds"


def panels() -> list[Panel]:
    """Return the panels, in the order in which they are read."""
    texts, computed = risen(_TEXTS, MODEL), risen(_TEXTS, MODEL, 'result="upstream"')
    looked_up = (*ASKED, 'cache!=""')
    requests, failed = rate(_REQUESTS, *ASKED), rate(_REQUESTS, *ASKED, 'code=~"5.."')
    return [
        number(
            "Texts that were cached",
            "Share of the texts for which no upstream and no local model had to work.",
            "percentunit",
            f"1 - ({computed} or vector(0)) / {texts}",
        ),
        number(
            "Saved",
            "What cached tokens would have cost, by the price list in effect.",
            "currencyUSD",
            risen(_DOLLARS, MODEL, 'kind="saved"'),
        ),
        number(
            "Spent",
            "What upstreams were paid for tokens that they computed.",
            "currencyUSD",
            risen(_DOLLARS, MODEL, 'kind="spent"'),
        ),
        number("Requests", "For vectors and chats, now.", "reqps", requests),
        number(
            "A cached answer takes",
            "99 in 100 answers for which nobody had to be asked took less, now.",
            "s",
            quantile(0.99, _SECONDS, *ASKED, 'cache="hit"'),
            limits={0.05: FAIR, 0.25: BAD},
        ),
        number(
            "Failed",
            "Share of requests answered with a 5xx, now.",
            "percentunit",
            f"({failed} or vector(0)) / {requests}",
            limits={0.001: FAIR, 0.01: BAD},
        ),
        graph(
            "Texts by source",
            "Where vectors came from: memory, a store, a text of the same request (duplicate) or "
            "of another one that was being asked for already (in-flight), or upstream.",
            "cps",
            {"{{result}}": rate(_TEXTS, MODEL, by="result")},
            stacked=True,
        ),
        graph(
            "Dollars an hour",
            "Spent for what upstreams computed, saved for what they did not.",
            "currencyUSD",
            {"{{kind}}": f"3600 * {rate(_DOLLARS, MODEL, by='kind')}"},
        ),
        graph(
            "Tokens",
            "Computed upstream, or had already; of texts, and of chats.",
            "cps",
            {
                "texts, {{source}}": rate("gateway_input_tokens_total", MODEL, by="source"),
                "chats, {{source}}": rate("gateway_chat_tokens_total", MODEL, by="source"),
            },
            stacked=True,
        ),
        graph(
            "Requests by what was cached",
            "All of a request (hit), a part of it, or nothing (miss); bypass: it asked for fresh "
            "answers.",
            "reqps",
            {"{{cache}}": rate(f"{_SECONDS}_count", *looked_up, by="cache")},
            stacked=True,
        ),
        graph(
            "Duration by what was cached",
            "From a request's headers to its last byte: half take less than the 50 % line.",
            "s",
            quantiles("cache", _SECONDS, *looked_up),
            log=True,
        ),
        graph(
            "What the gateway adds",
            "A request's time without what was waited for upstreams and local models.",
            "s",
            quantiles("operation", "gateway_overhead_seconds"),
            log=True,
        ),
        graph(
            "Answers by status",
            "499: the client left before the end.",
            "reqps",
            {"{{code}}": rate(_REQUESTS, *ASKED, by="code")},
            stacked=True,
        ),
        graph(
            "Turned away",
            "Requests that the gateway itself refused, by reason.",
            "reqps",
            {"{{reason}}": rate("gateway_rejected_total", by="reason")},
        ),
        graph(
            "Dollars an hour by key",
            "What requests with each key of the config have cost.",
            "currencyUSD",
            {"{{key}}": f"3600 * {rate('gateway_key_cost_usd_total', by='key')}"},
        ),
    ]

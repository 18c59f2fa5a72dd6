"""Plausible chat answers, and streams that say them: for the tests that put them together."""

import json

from hypothesis import strategies as st

from gateway.completion import Assembly
from gateway.sse import DONE

TEXTS = st.text(max_size=20)
NAMES = st.text("abc_-09", min_size=1, max_size=8)
LOGPROBS = st.fixed_dictionaries(
    {
        "token": TEXTS,
        "logprob": st.floats(-9999, 0),
        "bytes": st.none() | st.lists(st.integers(0, 255), max_size=3),
        "top_logprobs": st.just([]),
    }
)
TOOL_CALLS = st.builds(
    lambda id_, name, arguments: {
        "id": id_,
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    },
    NAMES,
    NAMES,
    TEXTS,
)
ANNOTATIONS = st.just(
    [
        {
            "type": "url_citation",
            "url_citation": {"start_index": 0, "end_index": 3, "title": "a", "url": "b"},
        }
    ]
)
MESSAGES = st.fixed_dictionaries(
    {
        "role": st.just("assistant"),
        "content": st.none() | TEXTS,
        "refusal": st.none() | TEXTS,
    },
    optional={
        "reasoning_content": TEXTS,
        "tool_calls": st.lists(TOOL_CALLS, min_size=1, max_size=3),
        "function_call": st.fixed_dictionaries({"name": NAMES, "arguments": TEXTS}),
        "annotations": ANNOTATIONS,
    },
)
TOKENS = st.lists(LOGPROBS, max_size=3)
CHOICES = st.fixed_dictionaries(
    {
        "message": MESSAGES,
        "logprobs": st.none()
        | st.fixed_dictionaries({"content": TOKENS, "refusal": st.none() | TOKENS}),
        "finish_reason": st.sampled_from(["stop", "length", "tool_calls", "content_filter"]),
    },
    optional={"stop_reason": st.integers() | NAMES},
)
USAGES = st.fixed_dictionaries(
    {
        "prompt_tokens": st.integers(0, 10**9),
        "completion_tokens": st.integers(0, 10**9),
        "total_tokens": st.integers(0, 10**9),
    },
    optional={"prompt_tokens_details": st.just({"cached_tokens": 3})},
)


def _numbered(answer):
    choices = [{"index": index, **choice} for index, choice in enumerate(answer["choices"])]
    return {**answer, "choices": choices}


WHOLES = st.fixed_dictionaries(
    {
        "id": NAMES,
        "object": st.just("chat.completion"),
        "created": st.integers(1, 2**40),
        "model": NAMES,
        "choices": st.lists(CHOICES, min_size=1, max_size=3),
    },
    optional={
        "usage": USAGES,
        "system_fingerprint": NAMES,
        "service_tier": st.sampled_from(["default", "flex"]),
        "provider": NAMES,
        "metadata": st.dictionaries(NAMES, TEXTS, max_size=2),
    },
).map(_numbered)
"""A `chat.completion` with all that OpenAI always sends, and some that only others do."""


USAGE = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
HEAD = {"id": "c-1", "object": "chat.completion.chunk", "created": 7, "model": "m"}


def told(chunk):
    """Return the event that says this chunk."""
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def chunk(*choices, **fields):
    """Return the event of a chunk with these choices, and fields beside them."""
    return told({**HEAD, "choices": list(choices), **fields})


def piece(delta, *, index=0, end=None, **fields):
    """Return one item of a chunk's `choices`."""
    return {"index": index, "delta": delta, "finish_reason": end, **fields}


def assembled(events):
    """Return what an Assembly makes of these events, read; None if it makes nothing."""
    assembly = Assembly()
    for event in events:
        assembly.add(event)
    whole = assembly.whole()
    return None if whole is None else json.loads(whole)


HELLO = [
    chunk(piece({"role": "assistant", "content": "", "refusal": None})),
    chunk(piece({"content": "Hel"})),
    chunk(piece({"content": "lo"})),
    chunk(piece({}, end="stop")),
    chunk(usage=USAGE),
    DONE,
]

FIELDS = [
    "choices",
    "index",
    "delta",
    "message",
    "finish_reason",
    "usage",
    "error",
    "content",
    "tool_calls",
    "logprobs",
    "system_fingerprint",
    "prompt_tokens",
    "x",
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4)
    ),
    max_leaves=15,
)


@st.composite
def streams(draw, whole):
    """Return the chunks of one of the many streams that say this answer, without [DONE]."""
    pieces = [list(_pieces(draw, choice)) for choice in whole["choices"]]
    head = {name: whole[name] for name in whole.keys() - {"choices", "usage", "metadata"}}
    head["object"] = "chat.completion.chunk"
    chunks = []
    while left := [queue for queue in pieces if queue]:
        count = draw(st.integers(1, len(left)))
        chunk = {**head, "choices": [queue.pop(0) for queue in left[:count]]}
        if draw(st.booleans()):
            chunk |= {"usage": None, "obfuscation": draw(TEXTS)}
        chunks.append(chunk)
        draw(st.randoms()).shuffle(pieces)
    if "metadata" in whole:
        draw(st.sampled_from(chunks))["metadata"] = whole["metadata"]
    if "usage" in whole and draw(st.booleans()):
        chunks[-1]["usage"] = whole["usage"]
    elif "usage" in whole:
        chunks.append({**head, "choices": [], "usage": whole["usage"]})
    return chunks


def _pieces(draw, choice):
    """Yield the items of one choice, its texts and lists cut anywhere, nulls between."""
    deltas = [{"role": "assistant"}]
    message = choice["message"]
    for name in ("reasoning_content", "content", "refusal"):
        if message.get(name) is not None:
            deltas += [{name: part} for part in _cut(draw, message[name])]
    if "annotations" in message:
        deltas.append({"annotations": message["annotations"]})
    if "function_call" in message:
        deltas += [{"function_call": part} for part in _called(draw, message["function_call"])]
    calls = [
        [
            {"index": index, **(({"id": call["id"], "type": "function"}) if first else {})}
            | {"function": part}
            for first, part in _first(_called(draw, call["function"]))
        ]
        for index, call in enumerate(message.get("tool_calls", []))
    ]
    while left := [queue for queue in calls if queue]:
        deltas.append({"tool_calls": [queue.pop(0) for queue in left[: draw(st.integers(1, 3))]]})
    lists = choice["logprobs"] and [
        {name: part}
        for name in ("content", "refusal")
        if choice["logprobs"][name] is not None
        for part in _cut(draw, choice["logprobs"][name])
    ]
    for delta in deltas:
        logprobs = lists.pop(0) if lists and draw(st.booleans()) else None
        yield {"index": choice["index"], "delta": delta, "logprobs": logprobs}
    for logprobs in lists or []:
        yield {"index": choice["index"], "delta": {"content": None}, "logprobs": logprobs}
    end = {name: choice[name] for name in choice.keys() - {"message", "logprobs"}}
    yield {"delta": {}, **end}


def _cut(draw, whole):
    """Return the pieces of a text or a list: at least one, and some may be empty."""
    at = draw(st.integers(0, len(whole)))
    return [whole] if draw(st.booleans()) else [whole[:at], whole[at:]]


def _called(draw, function):
    first, *others = _cut(draw, function["arguments"])
    return [{"name": function["name"], "arguments": first}, *({"arguments": x} for x in others)]


def _first(parts):
    return [(number == 0, part) for number, part in enumerate(parts)]

"""P10 for chats: a canary and secret keys go through every path, and are found nowhere afterwards.

Neither in the log at debug level, nor on standard error, the metrics, an error's body or a file.
What test_privacy looks for with embeddings is looked for here with chats.
"""

import json

import pytest

from tests import upstream_chat_behaviours as chat_behave
from tests.chatting import chat, chat_model, chunks, said
from tests.test_privacy import (
    BEARER,
    CANARY,
    SECRETS,
    TOML,
    UPSTREAM,
    UPSTREAM_KEY,
    clean,
    everywhere,
    openai_says,
)

__all__ = ["everywhere"]

MESSAGES = [
    {"role": "system", "content": CANARY},
    {"role": "user", "content": [{"type": "text", "text": CANARY}]},
    {
        "role": "assistant",
        "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "f", "arguments": CANARY}}
        ],
    },
    {"role": "tool", "tool_call_id": "a", "content": CANARY},
]
FORMS = pytest.mark.parametrize(
    "fields", [{}, {"seed": 1}, {"stream": True}, {"stream": True, "seed": 1}], ids=range(4)
)


@pytest.fixture
def running(gateway, fake_openai):
    fake_openai.key = UPSTREAM_KEY
    toml = TOML.replace('request_timeout = "1s"', 'chat_timeout = "1s"')
    return gateway(chat_model(fake_openai.base_url, upstream=UPSTREAM, rest=toml), **SECRETS)


def ask(running, **fields):
    return chat(running, headers=BEARER, **({"messages": MESSAGES} | fields))


@FORMS
def test_what_goes_well_leaves_nothing_behind(running, everywhere, fields):
    """Answers that are made, kept and told again."""
    for _ in range(2):
        answer = ask(running, user=CANARY, metadata={"a": CANARY}, **fields)
        assert said(answer)
        clean(str(answer.headers))
    assert '"request"' in running.log


BAD = [
    {"seed": CANARY}, {"stream": CANARY}, {"messages": CANARY}, {"messages": {"a": CANARY}},
    {"stream_options": {"include_usage": CANARY}, "stream": True}, {"model": None},
    {"model": "nope"}, {"messages": [{"role": "user", "content": CANARY * 5000}]},
]  # fmt: skip


@pytest.mark.parametrize("body", BAD, ids=range(len(BAD)))
def test_a_refused_request_quotes_nothing(running, everywhere, body):
    """Whatever is wrong with it."""
    answer = ask(running, **body)
    assert 400 <= answer.status_code < 500
    clean(answer.text, str(answer.headers))


@FORMS
@pytest.mark.parametrize(
    "said",
    [
        openai_says(f"cannot read {CANARY!r}"),
        openai_says(f"cannot read {CANARY}"),
        openai_says(f"cannot read {json.dumps(CANARY)}", param=CANARY, code=CANARY),
        {"error": CANARY},
        {"detail": f"bad: {CANARY}"},
        openai_says(f"no access with {UPSTREAM_KEY}"),
        openai_says("no access with header-c4n4ry and query-c4n4ry", code="query-c4n4ry"),
    ],
    ids=["repr", "plain", "json", "string", "detail", "key", "header"],
)
def test_an_upstream_that_quotes_is_not_quoted(running, fake_openai, everywhere, said, fields):
    """P8: neither the client's text nor the gateway's keys, by any status that refuses."""
    for status in (400, 401, 404, 422, 429, 500, 503):
        body, later = json.dumps(said).encode(), {"retry-after": "60"}
        fake_openai.chat.script(chat_behave.refuse(status, headers=later, body=body))
        answer = ask(running, **fields)
        assert answer.status_code >= 400
        clean(answer.text, str(answer.headers))
        assert "sk-upstream" not in answer.text


@pytest.mark.parametrize("seed", [None, 1], ids=["relayed", "recorded"])
@pytest.mark.parametrize("code", [400, 401, 404, 429, 500, None])
def test_an_error_in_place_of_a_stream_quotes_nothing(running, fake_openai, everywhere, code, seed):
    """Though the upstream had said that all is well."""
    for quoted in (CANARY, json.dumps(CANARY), UPSTREAM_KEY):
        said = openai_says(f"cannot read {quoted}", code=code, param=CANARY)["error"]
        fake_openai.chat.script(chat_behave.error_event(0, said))
        answer = ask(running, stream=True, seed=seed)
        assert answer.status_code >= 400
        clean(answer.text, str(answer.headers))
        fake_openai.chat.script(chat_behave.refuse(200, body=json.dumps({"error": said}).encode()))
        answer = ask(running, seed=seed)
        assert answer.status_code >= 400
        clean(answer.text, str(answer.headers))


@FORMS
@pytest.mark.parametrize(
    "behaviour", [chat_behave.cut(2), chat_behave.short(2), chat_behave.error_event(2)]
)
def test_what_breaks_gives_nothing_away(running, fake_openai, everywhere, behaviour, fields):
    """In the answer as in the log."""
    fake_openai.chat.script(behaviour)
    clean(ask(running, **fields).text)


def test_messages_that_cannot_be_read_are_not_quoted_either(running, fake_openai, everywhere):
    """A number beyond any reader stands among them, and the upstream repeats their words."""
    quoted = openai_says(f"cannot read {CANARY}")
    fake_openai.chat.script(chat_behave.refuse(400, body=json.dumps(quoted).encode()))
    messages = json.dumps(MESSAGES)[:-1] + ', {"x": 1e999}]'
    body = f'{{"model":"m","messages":{messages}}}'
    answer = running.http.post("/v1/chat/completions", content=body, headers=BEARER)
    assert answer.status_code == 400
    clean(answer.text)


class Broken:
    """A transport whose answers break in a way that nobody foresaw, and say too much."""

    status = 200

    def __init__(self):
        self.headers = {"content-type": "text/event-stream"}
        self.closed = False

    async def open(self, _, url, headers, body, **__):
        self.words = f"{url} {dict(headers)} {body!r} {CANARY}"
        return self

    async def __aiter__(self):
        yield b'data: {"choices":[{"index":0,"delta":{"content":"x"}}]}\n\n'
        raise RuntimeError(self.words)

    async def aclose(self):
        self.closed = True


@pytest.mark.parametrize("seed", [None, 1], ids=["relayed", "recorded"])
def test_what_nobody_foresaw_within_a_stream_gives_nothing_away(gateway, fake_openai, seed):
    """The stream ends with an error in OpenAI's form, and the log has the place."""
    broken = Broken()
    toml = chat_model(fake_openai.base_url, upstream=UPSTREAM, rest=TOML)
    running = gateway(toml, open_transport=lambda _: broken, **SECRETS)
    answer = ask(running, stream=True, seed=seed)
    assert answer.status_code == 200
    error = chunks(answer.content)[-1]["error"]
    assert (error["type"], error["code"]) == ("server_error", "internal_error")
    assert "unforeseen error" in running.log
    assert broken.closed
    clean(answer.text, running.log)

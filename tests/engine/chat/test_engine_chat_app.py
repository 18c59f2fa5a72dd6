"""What a chat engine answers: OpenAI's forms, the same whether streamed or not."""

import json

import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.engine.chat.running_chat import PATH, asking, told

pytestmark = pytest.mark.engine

ENDLESS = {"logit_bias": {"2": -100, "3": -100, "4": -100}}
"""The tiny model's end tokens: an answer then goes on to its bound."""
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"planet": {"enum": ["Mars", "Venus"]}},
            "required": ["planet"],
            "additionalProperties": False,
        },
    },
}


def test_an_answer_is_what_openai_describes(short):
    """Its SDK's own model takes it, and no required field is missing."""
    answer = short.chat("we went to Mars", seed=7)
    ChatCompletion.model_validate(answer, strict=True)
    choice = answer["choices"][0]
    assert {"index", "message", "logprobs", "finish_reason"} == choice.keys()
    assert {"role", "content", "refusal"} == choice["message"].keys()
    assert (None, None, "stop") == (
        choice["logprobs"],
        choice["message"]["refusal"],
        choice["finish_reason"],
    )
    assert answer["id"].startswith("chatcmpl-")
    assert ("tiny", short.health()["fingerprint"]) == (
        answer["model"],
        answer["system_fingerprint"],
    )
    usage = answer["usage"]
    assert usage["prompt_tokens"] + usage["completion_tokens"] == usage["total_tokens"]


@pytest.mark.parametrize("fields", [{}, {"n": 3}, {"logprobs": True, "top_logprobs": 2}], ids=str)
def test_a_stream_says_what_the_whole_answer_says(short, fields):
    """Text, probabilities, reason and usage, put together of its chunks."""
    whole = short.chat("red dust", seed=5, **fields)
    stream = short.stream("red dust", seed=5, stream_options={"include_usage": True}, **fields)
    *told_chunks, last = stream
    for chunk in stream:
        ChatCompletionChunk.model_validate(chunk, strict=True)
    alike = {(c["id"], c["created"], c["model"], c["system_fingerprint"]) for c in stream}
    assert 1 == len(alike)
    assert [] == last["choices"]
    cached = whole["usage"].pop("prompt_tokens_details"), last["usage"].pop("prompt_tokens_details")
    assert [["cached_tokens"]] * 2 == [list(details) for details in cached]
    assert whole["usage"] == last["usage"]
    assert {None} == {chunk["usage"] for chunk in told_chunks}
    for choice in whole["choices"]:
        mine = [c for chunk in stream for c in chunk["choices"] if c["index"] == choice["index"]]
        assert {"role": "assistant", "content": "", "refusal": None} == mine[0]["delta"]
        assert ({}, choice["finish_reason"]) == (mine[-1]["delta"], mine[-1]["finish_reason"])
        assert {None} == {c["finish_reason"] for c in mine[:-1]}
        assert choice["message"]["content"] == told(stream, choice["index"])
        if "logprobs" in fields:
            entries = [e for c in mine if c["logprobs"] for e in c["logprobs"]["content"]]
            assert choice["logprobs"]["content"] == entries


def test_without_the_wish_no_chunk_speaks_of_usage(short):
    """As OpenAI: the key is not there at all."""
    stream = short.stream(seed=5)
    assert not any("usage" in chunk for chunk in stream)
    assert [1] * len(stream) == [len(chunk["choices"]) for chunk in stream]


def test_openais_sdk_reads_answers_and_streams(short):
    """By its own defaults, over our socket."""
    with openai.OpenAI(
        api_key="any", base_url="http://engine/v1", http_client=short.new_client(), max_retries=0
    ) as client:
        messages = asking("the sky")["messages"]
        whole = client.chat.completions.create(model="tiny", messages=messages, seed=4)
        with client.chat.completions.create(
            model="tiny", messages=messages, seed=4, stream=True
        ) as stream:
            texts = [chunk.choices[0].delta.content or "" for chunk in stream]
        assert whole.choices[0].message.content == "".join(texts)
        with pytest.raises(openai.BadRequestError, match="temperature"):
            client.chat.completions.create(model="tiny", messages=messages, temperature=3)


def test_an_answer_without_a_seed_tells_the_one_it_was_given(short):
    """With it, the same answer can be had again; a seed of the client's is not repeated."""
    body = asking("to Mars", temperature=2)
    drawn = short.post(body, PATH)
    seed = int(drawn.headers["x-gateway-seed"])
    again = short.post({**body, "seed": seed}, PATH)
    assert "x-gateway-seed" not in again.headers
    assert drawn.json()["choices"] == again.json()["choices"]
    with short.streaming({**body, "stream": True}) as streamed:
        assert seed != int(streamed.headers["x-gateway-seed"])
        streamed.read()


def test_five_seeds_give_at_least_two_texts(short):
    """And one seed gives one."""
    assert 2 <= len({short.text("Mars", seed=seed) for seed in range(5)})
    assert 1 == len({short.text("Mars", seed=1) for _ in range(5)})


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_string_ends_an_answer_and_is_never_shown(short, stream):
    """Wherever tokens are cut; the tokens up to it are counted."""
    free = short.text("dust", seed=11, max_completion_tokens=40, **ENDLESS)
    stop = free[7:12]
    fields = {"seed": 11, "stop": ["never there", stop], "max_completion_tokens": 40, **ENDLESS}
    if stream:
        answer = short.stream("dust", **fields)
        text, finish = told(answer), answer[-1]["choices"][0]["finish_reason"]
        assert all(stop not in (c["choices"][0]["delta"].get("content") or "") for c in answer)
    else:
        (choice,) = short.chat("dust", **fields)["choices"]
        text, finish = choice["message"]["content"], choice["finish_reason"]
    assert (free[: free.index(stop)], "stop") == (text, finish)


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_a_bound_on_tokens_ends_an_answer(short, name):
    """With the reason `length`, and exactly so many tokens."""
    answer = short.chat(seed=1, **ENDLESS, **{name: 9})
    assert ("length", 9) == (
        answer["choices"][0]["finish_reason"],
        answer["usage"]["completion_tokens"],
    )


def test_without_a_bound_an_answer_may_fill_the_context(short):
    """What the prompt leaves of it."""
    answer = short.chat(seed=1, **ENDLESS)
    assert ("length", 512) == (
        answer["choices"][0]["finish_reason"],
        answer["usage"]["total_tokens"],
    )


def test_choices_differ_and_the_first_is_the_only_one_of_a_smaller_request(short):
    """Each has a seed of its own made of the request's."""
    three = [c["message"]["content"] for c in short.chat(seed=8, n=3, temperature=2)["choices"]]
    one = [c["message"]["content"] for c in short.chat(seed=8, temperature=2)["choices"]]
    assert one == three[:1]
    assert 2 <= len(set(three))


def test_probabilities_are_told_for_each_token(short):
    """Their bytes make the text; the likeliest come first, as many as were asked for."""
    answer = short.chat(seed=2, logprobs=True, top_logprobs=3, max_tokens=30, **ENDLESS)
    (choice,) = answer["choices"]
    entries = choice["logprobs"]["content"]
    assert answer["usage"]["completion_tokens"] == len(entries) == 30
    data = bytes(byte for entry in entries for byte in entry["bytes"])
    assert choice["message"]["content"] == data.decode(errors="replace")
    for entry in entries:
        chances = [top["logprob"] for top in entry["top_logprobs"]]
        assert sorted(chances, reverse=True) == chances
        assert 3 == len(chances)
        assert entry["logprob"] <= chances[0] <= 0


def test_a_prompt_that_does_not_fit_is_refused_with_the_numbers(short):
    """In OpenAI's sentences, as an error of `messages`."""
    status, error = short.refusal("x" * 600)
    assert (400, "messages", "context_length_exceeded") == (status, error["param"], error["code"])
    tokens = 600 + short.chat("", max_tokens=1)["usage"]["prompt_tokens"]
    assert error["message"] == (
        f"This model's maximum context length is 512 tokens. However, your messages resulted in"
        f" {tokens} tokens. Please reduce the length of the messages."
    )
    status, error = short.refusal("x" * 400, max_tokens=300)
    assert (400, "context_length_exceeded") == (status, error["code"])
    assert (
        f"you requested {tokens - 200 + 300} tokens ({tokens - 200} in the messages, 300 in the"
        " completion)"
    ) in error["message"]
    status, error = short.refusal("x" * 200_000)
    assert (400, "context_length_exceeded") == (status, error["code"])


def test_a_refusal_of_a_stream_keeps_its_status(short):
    """Nothing is sent before the first token is there."""
    for fields in ({"temperature": -1}, {"max_tokens": 10_000}):
        status, error = short.refusal(stream=True, **fields)
        assert (400, "invalid_request_error") == (status, error["type"])


def test_other_paths_and_methods_are_told_what_is_served(short):
    """404 and 405 with OpenAI's body; embeddings are another engine's."""
    found = [
        short.client.get("/x"),
        short.client.get(PATH),
        short.post({"input": ["dog"]}, "/v1/embeddings"),
    ]
    assert [404, 405, 404] == [response.status_code for response in found]
    assert "POST" == found[1].headers["allow"]
    assert all("message" in response.json()["error"] for response in found)


def test_an_answer_may_have_to_be_json_of_a_form(short):
    """The grammar of a schema, and of any object."""
    schema = {
        "type": "object",
        "properties": {"planet": {"enum": ["Mars", "Venus"]}, "moons": {"type": "boolean"}},
        "required": ["planet", "moons"],
        "additionalProperties": False,
    }
    wish = {"type": "json_schema", "json_schema": {"name": "planet", "schema": schema}}
    answer = json.loads(short.text(seed=3, response_format=wish))
    assert {"planet", "moons"} == answer.keys()
    loose = short.chat(seed=3, response_format={"type": "json_object"}, max_tokens=300)
    if loose["choices"][0]["finish_reason"] == "stop":
        assert isinstance(json.loads(loose["choices"][0]["message"]["content"]), dict)


@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "weather"}}]
)
def test_a_call_that_must_be_made_is_made(tools, choice):
    """With arguments that fit, streamed or not, and the reason `tool_calls`."""
    fields = {"seed": 1, "tools": [WEATHER], "tool_choice": choice, "parallel_tool_calls": False}
    answer = tools.chat("how is the weather", **fields)
    ChatCompletion.model_validate(answer, strict=True)
    (found,) = answer["choices"]
    (call,) = found["message"]["tool_calls"]
    assert ("tool_calls", None) == (found["finish_reason"], found["message"]["content"])
    assert ("function", "weather") == (call["type"], call["function"]["name"])
    assert json.loads(call["function"]["arguments"])["planet"] in ("Mars", "Venus")
    stream = tools.stream("how is the weather", **fields)
    deltas = [chunk["choices"][0]["delta"] for chunk in stream]
    streamed = [c for delta in deltas for c in delta.get("tool_calls", [])]
    assert [call["function"]] == [c["function"] for c in streamed]
    assert {"role": "assistant", "content": None, "refusal": None} == deltas[0]
    assert "tool_calls" == stream[-1]["choices"][0]["finish_reason"]


def test_a_model_that_was_not_taught_tools_refuses_them(short):
    """A 400 that says what would help."""
    status, error = short.refusal(tools=[WEATHER])
    assert (400, "tools") == (status, error["param"])
    assert "chat_template" in error["message"]


def test_a_template_of_ours_takes_the_place_of_the_files(start_chat, chats):
    """By its name, or as text; each gives a fingerprint of its own."""
    named = start_chat(chats["mute"], chat_template="chatml")
    written = start_chat(chats["mute"], chat_template="{{ messages[0].content }}")
    assert ["chatml", "config"] == [e.health()["template"] for e in (named, written)]
    assert 3 == written.chat("h e", max_tokens=1)["usage"]["prompt_tokens"]
    assert named.health()["fingerprint"] != written.health()["fingerprint"]


def test_the_names_of_marks_in_a_message_are_text(short):
    """Nobody ends their turn, or begins another's, by writing so."""
    plain = short.chat("a", max_tokens=1)["usage"]["prompt_tokens"]
    marked = short.chat("a<|im_end|>", max_tokens=1)["usage"]["prompt_tokens"]
    assert len("<|im_end|>") == marked - plain


def test_a_decoded_prompt_is_reused_for_its_own_key_alone(tools):
    """The gateway gives each tenant another `prompt_cache_key`."""

    def reused(**key):
        usage = tools.chat("we went to Mars " * 30, max_tokens=1, **key)["usage"]
        return usage["prompt_tokens_details"]["cached_tokens"]

    asked = ("one", "one", "two", "two", "one")
    assert [0, 256, 0, 256, 0] == [reused(prompt_cache_key=key) for key in asked]
    assert [0, 256] == [reused(), reused(prompt_cache_key=None)]

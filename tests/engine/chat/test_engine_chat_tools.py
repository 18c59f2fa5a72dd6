"""Texts as models of three families write them become content and calls, however they are cut."""

import json
from itertools import count, pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.engine.chat.tool_formats import (
    Hermes,
    Llama3,
    Mistral,
    MistralNamed,
    ToolFormat,
    format_of,
)
from gateway.engine.chat.tools import ToolReader

FUNCTIONS = ("get_weather", "get_time", "run")
Said = tuple[str, list[tuple[int, str, str, str]]]


def read(form: ToolFormat, *pieces: str, parallel: bool = True) -> Said:
    """The content, and the calls, that the pieces come to."""
    ids = count(1)
    reader = ToolReader(form, FUNCTIONS, lambda: f"{next(ids)}", parallel=parallel)
    deltas = [delta for piece in pieces for delta in reader.feed(piece)] + reader.finish()
    content, calls = "", []
    for said in (delta.as_dict() for delta in deltas):
        content += said.get("content", "")
        for call in said.get("tool_calls", []):
            assert call["type"] == "function"
            function = call["function"]
            calls.append((call["index"], call["id"], function["name"], function["arguments"]))
    assert reader.calls == len(calls)
    return content, calls


ROME, NOW = '{"place": "Rome"}', "{}"
RECORDED: list[tuple[ToolFormat, str, str, list[tuple[str, str]]]] = [
    (
        Hermes(),
        '<tool_call>\n{"name": "get_weather", "arguments": {"place": "Rome"}}\n</tool_call>',
        "",
        [("get_weather", ROME)],
    ),
    (
        Hermes(),
        (
            "I will look that up.\n\n<tool_call>\n"
            '{"name": "get_weather", "arguments": {"place": "Rome"}}\n</tool_call>\n<tool_call>\n'
            '{"name": "get_time", "arguments": {}}\n</tool_call>\n'
        ),
        "I will look that up.\n\n",
        [("get_weather", ROME), ("get_time", NOW)],
    ),
    (
        Hermes(),
        (
            '\n\n<tool_call>{"arguments": {"code": "if (a) { b(\\"}</tool_call>\\") }"}, '
            '"name": "run"}</tool_call>'
        ),
        "",
        [("run", '{"code": "if (a) { b(\\"}</tool_call>\\") }"}')],
    ),
    (  # the closing mark is forgotten
        Hermes(),
        '<tool_call>\n{"name": "get_time", "arguments": {}}',
        "",
        [("get_time", NOW)],
    ),
    (  # arguments that are a text once more
        Hermes(),
        '<tool_call>{"name": "get_weather", "arguments": "{\\"place\\": \\"Rome\\"}"}</tool_call>',
        "",
        [("get_weather", ROME)],
    ),
    (
        Llama3(),
        '{"name": "get_weather", "parameters": {"place": "Rome"}}',
        "",
        [("get_weather", ROME)],
    ),
    (
        Llama3(),
        (
            '<|python_tag|>{"name": "get_weather", "parameters": {"place": "Rome"}}; '
            '{"name": "get_time", "parameters": {}}'
        ),
        "",
        [("get_weather", ROME), ("get_time", NOW)],
    ),
    (
        Llama3(),
        '{"type": "function", "name": "get_time", "parameters": {}}',
        "",
        [("get_time", NOW)],
    ),
    (
        Mistral(),
        (
            '[TOOL_CALLS] [{"name": "get_weather", "arguments": {"place": "Rome"}, '
            '"id": "a1b2c3d4e"}, {"name": "get_time", "arguments": {}}]'
        ),
        "",
        [("get_weather", ROME), ("get_time", NOW)],
    ),
    (
        MistralNamed(),
        'Let me see.[TOOL_CALLS]get_weather[ARGS]{"place": "Rome"}[TOOL_CALLS]get_time[ARGS]{}',
        "Let me see.",
        [("get_weather", ROME), ("get_time", NOW)],
    ),
    (
        MistralNamed(),
        '[TOOL_CALLS]get_weather[CALL_ID]a1b2c3d4e[ARGS]{"place": "Rome"}',
        "",
        [("get_weather", ROME)],
    ),
]
NO_CALLS: list[tuple[ToolFormat, str]] = [
    (Hermes(), "It is 12 < 13, and <tool> is no mark."),
    (Hermes(), "  \n"),
    (Hermes(), '<tool_call>\n{"name": "get_weather", "arguments": {"place": "Ro'),
    (Hermes(), '<tool_call>\n{"name": "get_weather", "arguments": [1]}\n</tool_call>'),
    (Hermes(), '<tool_call>\n{"name": "get_weather", arguments: {}}\n</tool_call>'),
    (Hermes(), '<tool_call>\n{"name": "unknown", "arguments": {}}\n</tool_call>'),
    (Hermes(), "<tool_call>get_weather(place=Rome)</tool_call>"),
    (Hermes(), "The end <tool_ca"),
    (Llama3(), '{"answer": 42, "name": 3}'),
    (Llama3(), '{"name": "Rome", "parameters": {"population": 3}}'),
    (Llama3(), 'As JSON: {"name": "get_time", "parameters": {}}'),
    (Llama3(), '<|python_tag|>brave_search.call(query="weather")'),
    (Llama3(), '; {"name": "get_time", "parameters": {}}'),
    (Mistral(), '[TOOL_CALLS] [{"name": "get_time", "arguments": {}}, {"name": "x"}]'),
    (Mistral(), "[TOOL_CALLS] []"),
    (MistralNamed(), "[TOOL_CALLS]get_time {}"),
    (MistralNamed(), "[TOOL_CALLS]get_time[ARGS]3"),
    (MistralNamed(), "[TOOL_CALLS]" + "x" * 200),
]


@pytest.mark.parametrize(("form", "text", "content", "calls"), RECORDED)
def test_recorded_outputs_are_read(form, text, content, calls):
    """As these models write: calls alone, behind a text, several, in older and newer notations."""
    expected = [(i, f"call_{i + 1}", *call) for i, call in enumerate(calls)]
    assert read(form, text) == (content, expected)
    assert read(form, *text) == (content, expected)


@pytest.mark.parametrize(("form", "text"), NO_CALLS)
def test_what_is_no_call_is_content(form, text):
    """Broken, cut, unknown or only alike: every character comes out as it was."""
    assert read(form, text) == (text, [])
    assert read(form, *text) == (text, [])


FRAGMENTS = st.sampled_from(
    [
        *("<tool_call>", "</tool_call>", "<|python_tag|>", "[TOOL_CALLS]", "[ARGS]", "get_time"),
        *('{"name": "get_time", "arguments": {}}', '{"name": "run", "parameters": {"a": "}"}}'),
        *("{", "}", "[", "]", '"', "\\", "\n", " ", ";", "<", "text", ", ", "é", "[CALL_ID]"),
        *('{"name": "other", "arguments": {}}', '"name": ', "{}", '[{"name": "run"}]'),
    ]
)
FORMS = st.sampled_from([Hermes(), Llama3(), Mistral(), MistralNamed()])


@given(
    form=FORMS,
    text=st.lists(FRAGMENTS, max_size=14).map("".join),
    cuts=st.lists(st.integers(0, 300), max_size=12),
    parallel=st.booleans(),
)
@example(form=Hermes(), text=" <tool_call>{}", cuts=[1, 3], parallel=True)
@example(form=Llama3(), text='{"name": "run"};;{"name": "run"}', cuts=[15, 16, 17], parallel=True)
def test_cuts_make_no_difference(form, text, cuts, parallel):
    """The deltas come to the same for one piece, for single characters, and for any between."""
    at = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
    pieces = [text[start:end] for start, end in pairwise(at)]
    whole = read(form, text, parallel=parallel)
    assert read(form, *pieces, parallel=parallel) == whole
    assert read(form, *text, parallel=parallel) == whole
    content, calls = whole
    if not calls:
        assert content == text
    for _, _, name, arguments in calls:
        assert name in FUNCTIONS
        assert isinstance(json.loads(arguments), dict)
        assert name in text


@given(form=FORMS, text=st.text(alphabet="ab<[{ \n", max_size=40))
def test_text_is_given_out_at_once(form, text):
    """Only what may be the beginning of a call is held back, not the text before it."""
    reader = ToolReader(form, FUNCTIONS, lambda: "x")
    said = "".join(delta.as_dict()["content"] for delta in reader.feed("a" + text))
    held = ("a" + text)[len(said) :]
    assert form.opening.startswith(held)


def test_one_call_only():
    """With parallel_tool_calls false the first call is the answer."""
    text = RECORDED[1][1]
    content, calls = read(Hermes(), *text, parallel=False)
    assert content == "I will look that up.\n\n"
    assert [call[2] for call in calls] == ["get_weather"]
    listed = RECORDED[8][1]
    assert len(read(Mistral(), listed, parallel=False)[1]) == 1


def test_content_after_a_call_is_content():
    """Some models go on to talk."""
    text = RECORDED[0][1] + "\nThat should do."
    content, calls = read(Hermes(), *text)
    assert content == "\nThat should do."
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("source", "form"),
    [
        ('…<tool_call>\n{"name": …, "arguments": …', Hermes),
        ("<tool_call>\n<function=", None),
        ("<tool_call>name\n<arg_key>", None),
        ("[TOOL_CALLS] [", Mistral),
        ("[TOOL_CALLS]name[ARGS]", MistralNamed),
        ("<|start_header_id|>… '\"parameters\": '", Llama3),
        ("<|im_start|>", None),
    ],
)
def test_notation_is_recognized_from_the_template(source, form):
    """By the marks that a template teaches its model."""
    found = format_of(source)
    assert found is None if form is None else type(found) is form

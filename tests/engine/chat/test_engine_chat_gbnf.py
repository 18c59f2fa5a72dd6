"""What llama.cpp is never shown: grammars over which it hangs, dies, or writes the request out."""

import json
import random

import numpy as np
import pytest

pytest.importorskip("llama_cpp", reason="llama-cpp-python is missing (extra [local])")

from llama_cpp import llama_cpp as llama
from llama_cpp.llama_grammar import json_schema_to_gbnf

from gateway.engine.chat.faults import GrammarError
from gateway.engine.chat.gbnf_check import MAX_TEXT, check_grammar
from gateway.engine.chat.sampling import Sampler, Sampling
from tests.engine.chat.writing import load
from tests.tiny_chat import write_chat

pytestmark = pytest.mark.engine


def chained(count, line, last):
    """Return rules that each begin with the next one."""
    rules = "\n".join(line.format(n, n + 1) for n in range(count))
    return f"root ::= r0\n{rules}\nr{count} ::= {last}"


# Measured with llama.cpp 0.5 alone: what it does with each is said beside it.
DEADLY = {
    "hidden left recursion": 'root ::= b root "a"\nb ::= c\nc ::= "z"?',  # never ends
    "left recursion in a group": 'root ::= ("z"?) root "a"',  # never ends
    "a smaller number last": 'root ::= "a"{5,2}',  # never ends
    "deep groups": "root ::= " + "(" * 100_000 + '"a"' + ")" * 100_000,  # overflows the stack
    "two ways at each step": chained(40, "r{0} ::= r{1} r{1}", '"a"?'),  # never ends
}
UNFIT = {
    "empty": "",
    "left recursion": 'root ::= root "a" | "b"',
    "no root": 'a ::= "b"',
    "too many": 'root ::= "a"{0,100000}',
    "too many, nested": 'root ::= ("a"{0,1999} "b"){0,9}',
    "too many, in a row": 'root ::= "a"{50}{50}',
    "too many rules": "".join(f'r{n} ::= "a"{{0,1999}}\n' for n in range(11)) + "root ::= r1",
    "too long": "root ::= " + '"a" ' * (MAX_TEXT // 4),
    "too many characters": 'root ::= "' + "a" * 10_000 + '"{1999}',
    "a long chain": chained(5000, "r{0} ::= r{1}", '"a"'),
    "undefined rule": 'root ::= "a" other',
    "defined twice": 'root ::= "a"\nroot ::= "b"',
    "wrong escape": 'root ::= "\\q"',
    "open text": 'root ::= "a',
    "open set": "root ::= [a",
    "open group": 'root ::= ("a"',
    "closed twice": 'root ::= "a")',
    "too many times, in a row": 'root ::= "a" "b"' + "?" * 400,  # a second in our own check
    "nothing repeated": 'root ::= * "a"',
    "nothing repeated, in a text": 'root ::= ""+',
    "nothing repeated, by nought": 'root ::= "a"{0}?',
    "no rule": 'root ::= "a"\n"b"',
    "a token": "root ::= <[3]>",
    "a NUL": 'root ::= "\0"',
    "half a character": 'root ::= "\ud800"',
    "left out, again and again": 'root ::= ("a"?){51}',
    "left out, in a row": 'root ::= "x" ' + '"a"? ' * 51 + '"b"',
    "left out, rule by rule": chained(51, 'r{0} ::= "a"? r{1}', '"b"'),
    "left out, behind what is not": 'root ::= (("x" ("a"?){20}) ("b"?){20}) ("c"?){20}',
    "optional, without end": 'root ::= ("" | "a")* "b"',
}
FIT = {
    "unicode": 'root ::= "日本" [é-ü\U0001f680]+',
    "lines": '# what\nroot ::=\n  "a" |\n  ("b"\n | a) # or\r\n\r\na ::= [^"\\\\\\]x]{2,}',
    "escapes": 'root ::= "\\x41\\u00e9\\U0001F680\\t\\r\\n\\\\\\"" [\\[\\]a\\-z]',
    "nothing": 'root ::= ""',
    "repetitions": 'root ::= "a"* "b"+ "c"? "d"{3} "e"{0} "f"{1,} "g"{0,2}',
    "right recursion": 'root ::= "(" root? ")"',
    "empty alternatives": "root ::= | [a] |",
    "left out, as often as may be": 'root ::= "x" ("a"?){50} "y" ("b"?){50}',
    "the most": 'root ::= "a"{0,1999} "b"{1999}',
}
PARTS = [
    *('"a"', '"b\\n"', "[a-z]", "[^\\]x]", ".", "(", ")", "|", "*", "+", "?", "{2}", "{0,3}"),
    *("{1,}", "{2,1}", "{40}", "{50,60}", "r1", "r2", "root", "é", '""', "{0}", '"', "["),
    *("\n", "#x\n", "r1 ::= ", "r2::=", "root ::= "),
]
SCHEMAS = [
    {"type": "object", "properties": {"a": {"type": "integer"}, "é": {"enum": ["日", None, 2]}}},
    {"type": "array", "items": {"type": "string", "maxLength": 3}, "maxItems": 4},
    {"anyOf": [{"type": "number"}, {"type": "boolean"}, {"const": {"x": []}}]},
    {"type": "string", "pattern": "^[a-c]{2,5}(-[0-9]+)?$"},
    {
        "$defs": {"node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}}},
        "type": "object",
        "properties": {"first": {"$ref": "#/$defs/node"}},
    },
]


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    """The tiny model's."""
    return load(write_chat(tmp_path_factory.mktemp("m") / "m.gguf")).vocabulary


def write(vocabulary, grammar, seed=1, room=300):
    """Return what flat logits write under a grammar, and whether it came to an end."""
    sampler = Sampler(vocabulary, Sampling(seed=seed, grammar=grammar), 0, room)
    logits = np.zeros(vocabulary.size, dtype=np.float32)
    found = b""
    try:
        for _ in range(room):
            token = sampler.pick(logits)
            if vocabulary.ends(token):
                return found, True
            found += vocabulary.piece(token)
        return found, False
    finally:
        sampler.close()


@pytest.mark.parametrize("grammar", [*DEADLY.values(), *UNFIT.values()], ids=[*DEADLY, *UNFIT])
def test_a_grammar_that_cannot_be_used_is_refused_in_silence(vocabulary, capfd, grammar):
    """At once, in words of ours, and nothing of it reaches standard error."""
    with pytest.raises(GrammarError) as caught:
        Sampler(vocabulary, Sampling(seed=1, grammar=grammar), 0, 9)
    assert len(str(caught.value)) < 120
    assert grammar == "" or grammar not in capfd.readouterr().err


@pytest.mark.parametrize("grammar", FIT.values(), ids=FIT)
def test_a_grammar_that_can_be_used_is_taken(vocabulary, grammar):
    """The checks are no stricter than they must be: what llama.cpp can do, it may."""
    found, _ = write(vocabulary, grammar)
    assert isinstance(found, bytes)


def test_a_grammar_says_what_is_written(vocabulary):
    """Characters of several bytes come whole, though some tokens are single bytes."""
    grammar = 'root ::= "<" [é日本]{3} (">" | "»")'
    for seed in range(20):
        found, ended = write(vocabulary, grammar, seed)
        middle = found.decode()[1:-1]
        assert ended
        assert len(middle) == 3
        assert set(middle) <= set("é日本")


@pytest.mark.parametrize("schema", SCHEMAS)
def test_grammars_of_json_schemas_are_taken(vocabulary, schema):
    """Those of llama-cpp-python's converter; what comes to an end is JSON."""
    grammar = json_schema_to_gbnf(json.dumps(schema))
    ended = 0
    for seed in range(10):
        found, end = write(vocabulary, grammar, seed)
        if end:
            json.loads(found.decode(errors="replace"), strict=False)
            ended += 1
    assert ended


def test_what_is_taken_is_never_written_to_standard_error(vocabulary, capfd):
    """Over grammars of random parts: each is refused by us, or understood by llama.cpp."""
    chance = random.Random(4)
    taken = 0
    for _ in range(5000):
        grammar = "root ::= " + " ".join(chance.choices(PARTS, k=chance.randint(1, 8)))
        if chance.random() < 0.7:
            grammar += "\nr1 ::= " + " ".join(chance.choices(PARTS[:17], k=chance.randint(1, 4)))
            grammar += "\nr2 ::= " + " ".join(chance.choices(PARTS[:18], k=chance.randint(1, 4)))
        try:
            check_grammar(grammar)
        except GrammarError:
            continue
        made = llama.llama_sampler_init_grammar(vocabulary.handle, grammar.encode(), b"root")
        if made:
            taken += 1
            llama.llama_sampler_free(made)
    assert taken > 100
    assert "parse" not in capfd.readouterr().err


def test_the_most_that_may_be_left_out_takes_no_token_long(tmp_path):
    """With a large vocabulary, in the one step that nothing can stop."""
    vocabulary = load(write_chat(tmp_path / "m.gguf", vocab=32_000)).vocabulary
    found, ended = write(vocabulary, "root ::= ([^x]?){50}", room=6)
    assert found or ended

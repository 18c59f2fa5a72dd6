"""Several upstreams in a config: what may be mixed, and what a model then means by default."""

from pathlib import Path

import pytest
from config_texts import parse

from gateway.cli.serve import model_lines

UPSTREAMS = """
[upstreams.east]
kind = "openai"
base_url = "http://east/v1"
[upstreams.west]
kind = "openai"
base_url = "http://west/v1"
[upstreams.here]
kind = "llama"
model = "builtin:all-minilm-l6-v2"
"""


def config(options, name="m"):
    return parse(f'{UPSTREAMS}\n[models."{name}"]\n{options}')


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ('task = "chat"\nupstreams = ["east", "west"]', "m"),
        ('task = "chat"\nupstreams = ["east", "here"]', "m"),
        ('task = "chat"\nupstreams = ["east", "west"]', "gpt-*"),
        ('space = "s"\nupstreams = ["east", "west"]', "m"),
        ('task = "embedding"\nspace = "s"\nupstreams = ["here", "west", "east"]', "m"),
    ],
)
def test_what_may_be_mixed(options, name):
    """Chats freely, patterns too; for embeddings whatever is of one declared space."""
    assert len(config(options, name).models[name].upstreams) > 1


def test_the_manuals_several_upstreams_are_right():
    """As they stand there, with the upstreams that they name."""
    page = (Path(__file__).parent.parent / "docs" / "configuration.md").read_text()
    blocks = [part.split("```")[0] for part in page.split("```toml\n")[1:]]
    [text] = [block for block in blocks if "weights" in block]
    upstreams = "".join(
        f'[upstreams.{name}]\nkind = "openai"\nbase_url = "http://{name}/v1"\n'
        for name in ("openai", "azure", "mistral")
    )
    assert not parse(upstreams + text).warnings


def warnings(options):
    return [line for line in config(options).warnings if "models.m" in line]


def test_what_is_of_no_use_is_told():
    """Weights of one upstream, a similarity with nothing to compare."""
    [told] = warnings('upstreams = ["east"]\nweights = { east = 3 }')
    assert told.endswith("weights: have no meaning with one upstream")
    [told] = warnings('upstreams = ["east"]\nsimilarity = 0.9')
    assert "similarity: has no meaning without space" in told
    [told] = warnings('task = "chat"\nupstreams = ["east", "west"]\nsimilarity = 0.9')
    assert "similarity: has no meaning for a chat model" in told
    assert not warnings('space = "s"\nupstreams = ["east", "west"]\nsimilarity = 0.9')


def test_a_name_upstream_is_one_or_one_for_each():
    """A text is for all of them; a table for those in it, and the others have the model's own."""
    model = config('task = "chat"\nupstreams = ["east", "west"]\nupstream_model = "n"').models["m"]
    assert [model.name_at(upstream, "m") for upstream in model.upstreams] == ["n", "n"]
    said = 'task = "chat"\nupstreams = ["east", "west"]\nupstream_model = { west = "n" }'
    model = config(said).models["m"]
    assert [model.name_at(upstream, "m") for upstream in model.upstreams] == ["m", "n"]


def test_what_only_openai_has_is_assumed_only_where_all_are_called_so():
    """Shorter vectors, ids of cl100k and the list price."""
    space = 'space = "s"\nupstreams = ["east", "west"]\n'
    name = "text-embedding-3-small"
    same = config(space, name).models[name]
    assert same.dimensions_for(name) == "any"
    assert same.token_ids_for(name, local=False) == "decode"
    assert same.price_for(name, local=False) == 0.02
    other = config(f'{space}upstream_model = {{ west = "azure-small" }}', name).models[name]
    assert other.dimensions_for(name) == "native"
    assert other.token_ids_for(name, local=False) == "native"
    assert other.price_for(name, local=False) is None


def test_all_upstreams_of_a_model_are_listed():
    """By `gateway models`, what is known of them once."""
    [line] = model_lines(config('space = "s"\nupstreams = ["east", "here"]'), {})
    assert "-> east: http://east/v1, here: all-minilm-l6-v2-q8_0.gguf" in line
    assert line.endswith("384 wide, 512 tokens, mean pooling")
    [line] = model_lines(config('task = "chat"\nupstreams = ["east", "west"]'), {})
    assert line.endswith("west: http://west/v1  chat")


def test_references_may_stand_in_the_tables():
    """A weight or a name may come from the environment; what is no number is not repeated."""
    said = (
        'task = "chat"\nupstreams = ["east", "west"]\n'
        'weights = { east = "${env:W}" }\nupstream_model = { west = "${env:N}" }'
    )
    model = parse(f"{UPSTREAMS}\n[models.m]\n{said}", {"W": "7", "N": "name"}).models["m"]
    assert (model.weights, model.upstream_model) == ({"east": 7}, {"west": "name"})
    with pytest.raises(Exception, match="not what it refers to"):
        parse(f"{UPSTREAMS}\n[models.m]\n{said}", {"W": "secret", "N": "name"})

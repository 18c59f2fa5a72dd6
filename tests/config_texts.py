"""What the config's tests share: a smallest config in two parts, and how a text is read."""

from pathlib import Path

from gateway import config as gateway_config

ENVIRON = {"SEARCH_TEAM_KEY": "canary-client-key", "OPENAI_API_KEY": "canary-upstream-key"}
UPSTREAM = '\n[upstreams.o]\nkind = "openai"\nbase_url = "https://example.com/v1"\n'
MODEL = '\n[models.m]\nupstreams = ["o"]\n'
SAMPLE = """
[server]
host = "127.0.0.1"
port = 8000

[cache]
memory = "256MiB"

[[keys]]
name = "search-team"
secret = "${env:SEARCH_TEAM_KEY}"
models = ["text-embedding-3-*"]
tenant = "search"

[upstreams.openai]
kind = "openai"
base_url = "https://api.openai.com/v1"
api_key = "${env:OPENAI_API_KEY}"

[upstreams.minilm]
kind = "llama"
model = "builtin:all-minilm-l6-v2"

[models."text-embedding-3-small"]
task = "embedding"
upstreams = ["openai"]
upstream_model = "text-embedding-3-small"

[models."all-minilm-l6-v2"]
task = "embedding"
upstreams = ["minilm"]
aliases = ["minilm"]

[models."gpt-*"]
task = "chat"
upstreams = ["openai"]
"""


def parse(text, environ=ENVIRON, base_dir=Path()):
    """Return the config that a text without a file is."""
    return gateway_config.parse(text, source=None, environ=environ, base_dir=base_dir)


def model(options, name="m", environ=ENVIRON):
    """Return a model on the upstream `o` with further options."""
    text = f'{UPSTREAM}\n[models."{name}"]\nupstreams = ["o"]\n{options}'
    return parse(text, environ).models[name]

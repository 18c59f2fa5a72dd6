"""Who takes part: the gateway, the floors and the peers, each as a command and its config file.

It knows how each is set up for speed; it starts and installs nothing.
"""

import sysconfig
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks.servers import ROOT, Contender, python
from benchmarks.upstream import MODEL

GGUF = ROOT / "gateway/assets/all-minilm-l6-v2/all-minilm-l6-v2-q8_0.gguf"
LOCAL_MODEL = "all-minilm-l6-v2"

GATEWAY = "gateway"
STARLETTE = "starlette + aiohttp"
BARE = "bare uvicorn + aiohttp"
READY = "bare uvicorn, bytes ready"
DIRECT = "upstream, direct"
LITELLM = "LiteLLM"
LITELLM_CACHED = "LiteLLM, cache on"
LLAMA_SERVER = "llama_cpp.server"

_GATEWAY_CONFIG = """\
[server]
log_level = "warning"
drift_every = 0

[cache]
{cache}

[upstreams.fake]
kind = "openai"
base_url = "{base}"
api_key = "sk-benchmark"

[models."{model}"]
task = "{task}"
upstreams = ["fake"]
"""

_CHAT_CONFIG = """\
[upstreams.file]
kind = "llama"
model = "{gguf}"
threads = {threads}
n_ctx = {context}

[models."{model}"]
task = "chat"
upstreams = ["file"]
"""

_LITELLM_CONFIG = """\
model_list:
{models}
litellm_settings:
  telemetry: false
  set_verbose: false
  cache: {cached}
  cache_params:
    type: local
"""

_LITELLM_MODEL = """\
  - model_name: {model}
    litellm_params:
      model: openai/{model}
      api_base: {base}
      api_key: sk-benchmark
"""


def fake_upstream(delay: float = 0.0) -> Contender:
    """Return the server that plays OpenAI, and takes `delay` seconds for each answer."""
    return Contender(
        "fake upstream", lambda port: python("benchmarks.upstream", str(port), str(delay)), "/"
    )


def fake_chat() -> Contender:
    """Return the server that plays OpenAI's chat."""
    return Contender(DIRECT, lambda port: python("benchmarks.chat_upstream", str(port)), "/")


def gateway(base: str, directory: Path, *, name: str = GATEWAY, cache: str = "") -> Contender:
    """Return the gateway before an upstream; its config is written into `directory`.

    `cache` is what stands in the config's [cache]; without any, vectors are kept in memory only.
    """
    text = _GATEWAY_CONFIG.format(base=base, model=MODEL, task="embedding", cache=cache)
    return _configured(name, text, directory)


def chat_gateway(base: str, directory: Path) -> Contender:
    """Return the gateway before an upstream that chats, under any name."""
    text = _GATEWAY_CONFIG.format(base=base, model="*", task="chat", cache="")
    return _configured(GATEWAY, text, directory)


def local_chat_gateway(
    gguf: Path, model: str, directory: Path, *, threads: int, context: int
) -> Contender:
    """Return the gateway with a chat model of its own, one context, nothing kept on disk."""
    text = _CHAT_CONFIG.format(gguf=gguf, model=model, threads=threads, context=context)
    return _configured(GATEWAY, text, directory)


def _configured(name: str, text: str, directory: Path) -> Contender:
    config = directory / f"{name}.toml".replace(" ", "-").replace(",", "")
    config.write_text(text, encoding="utf-8")
    return Contender(
        name,
        lambda port: python("gateway", "serve", "--config", config, "--port", str(port)),
        "/health/ready",
        {"XDG_CACHE_HOME": str(directory)},
    )


def local_gateway(directory: Path) -> Contender:
    """Return the gateway as it starts without a config: with the bundled model."""
    return Contender(
        GATEWAY,
        lambda port: python("gateway", "serve", "--port", str(port)),
        "/health/ready",
        # A place of its own for whatever it keeps on disk.
        {"XDG_CACHE_HOME": str(directory), "HOME": str(directory)},
    )


def starlette_floor(base: str) -> Contender:
    """Return the pass-through of starlette and aiohttp."""
    return Contender(STARLETTE, partial(_floor, "starlette", base))


def bare_floor(base: str) -> Contender:
    """Return the pass-through of aiohttp alone."""
    return Contender(BARE, partial(_floor, "bare", base))


def relay_floor(base: str) -> Contender:
    """Return the relay of chats with aiohttp alone."""
    return Contender(BARE, partial(_floor, "relay", base))


def ready_floor(answers: Path) -> Contender:
    """Return the app that sends the answers in a directory."""
    return Contender(READY, partial(_floor, "ready", str(answers)))


def litellm(
    interpreter: Path, base: str, directory: Path, *, cached: bool, models: Sequence[str] = (MODEL,)
) -> Contender:
    """Return LiteLLM's proxy with one worker and the settings its documentation has for speed."""
    config = directory / f"litellm-{cached}.yaml"
    listed = "".join(_LITELLM_MODEL.format(base=base, model=model) for model in models)
    text = _LITELLM_CONFIG.format(models=listed.rstrip(), cached=str(cached).lower())
    config.write_text(text, encoding="utf-8")
    command = interpreter.with_name("litellm")
    return Contender(
        LITELLM_CACHED if cached else LITELLM,
        lambda port: [
            command, "--config", config, "--host", "127.0.0.1", "--port", str(port),
            "--num_workers", "1",
        ],
        "/health/liveliness",
        {
            "LITELLM_MODE": "PRODUCTION",
            "LITELLM_LOG": "ERROR",
            # Else it fetches a price list from the internet at its start.
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
        },
        peer=True,
    )  # fmt: skip


def llama_server(interpreter: Path, directory: Path) -> Contender:
    """Return llama-cpp-python's own server, over the very libraries the gateway uses."""
    ours = Path(sysconfig.get_path("platlib")) / "llama_cpp"
    (directory / "llama_cpp").symlink_to(ours, target_is_directory=True)
    return Contender(
        LLAMA_SERVER,
        lambda port: [
            interpreter, "-m", "llama_cpp.server", "--model", GGUF, "--embedding", "true",
            "--host", "127.0.0.1", "--port", str(port), "--verbose", "false",
        ],
        "/v1/models",
        {"PYTHONPATH": str(directory)},
        peer=True,
    )  # fmt: skip


def _floor(name: str, what: str, port: int) -> list[str | Path]:
    return python("benchmarks.floors", name, str(port), what)

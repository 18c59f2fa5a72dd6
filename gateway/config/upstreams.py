"""The options of the upstreams, as `options` has the others: who embeds, and who chats."""

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct

from gateway.config.addresses import BASE_URL, CHAT_TEMPLATE, MODEL, PATH, PROXY
from gateway.config.forms import DURATION, about
from gateway.config.options import Count, Name
from gateway.config.secret import SECRET, SECRET_TABLE, Secret

LONGEST_CHAT = 8192
"""Tokens, unless the config says more: memory is taken for all of them when the model is loaded."""
TEXTS_WAITING, CHATS_WAITING = 16384, 256
"""How many may wait: a text takes milliseconds, a chat seconds."""
_CHATS_READY = 2
"""Chats that an engine is given to prepare while its contexts are busy."""


CALLS_AT_ONCE = 64
"""To an engine, with up to 16 texts each: many more than it decodes at a time, so that it can be
fair to short texts, and few enough that a key whose turn it is does not wait behind them long."""

_PER_KEY = (
    "Most of them that may be of one key; beyond it that key gets a 429. Default half of them. "
    "Without keys there is no such bound."
)


class OpenAIUpstream(Struct, frozen=True, kw_only=True):
    """Any server that speaks the OpenAI API."""

    kind: Annotated[Literal["openai"], about("A server that speaks the OpenAI API.")] = "openai"
    base_url: Annotated[
        str,
        about("Its address, up to and with /v1.", "https://api.openai.com/v1", form=BASE_URL),
    ]
    api_key: Annotated[
        Secret | None, about("The key it wants.", "${env:OPENAI_API_KEY}", form=SECRET)
    ] = None
    forward_key: Annotated[
        bool,
        about(
            "Ask it with the caller's own key in place of api_key, and with the caller's "
            "openai-organization and openai-project. Not together with [[keys]]."
        ),
    ] = False
    shared_cache: Annotated[
        bool,
        about(
            "With forward_key: let all callers share what is cached. Whoever sends any key, even a "
            "wrong one, is then answered from the cache; else each key has a cache of its own."
        ),
    ] = False
    timeout: Annotated[float, about("How long one attempt may take.", "60s", form=DURATION)] = 60.0
    connect_timeout: Annotated[
        float, about("How long connecting may take.", "5s", form=DURATION)
    ] = 5.0
    max_batch: Annotated[
        Annotated[int, Meta(ge=1, le=2048)],
        about("Most texts it takes in one call; larger requests are split."),
    ] = 2048
    concurrency: Annotated[Count, about("Most calls to it at the same time, per worker.")] = 64
    max_queue: Annotated[
        Count,
        about(
            "Most calls that wait for one of these to end, per worker; beyond it they get a 503."
        ),
    ] = 1024
    max_queue_per_key: Annotated[Count | None, about(_PER_KEY)] = None
    headers: Annotated[
        dict[str, Secret],
        about("Headers sent with every call.", {"x-team": "search"}, form=SECRET_TABLE),
    ] = {}
    query: Annotated[
        dict[str, Secret],
        about("Query parameters of every call.", {"api-version": "2024-10-21"}, form=SECRET_TABLE),
    ] = {}
    auth_header: Annotated[
        Name,
        about(
            "Header that carries api_key: authorization as `Bearer KEY`, any other as it is.",
            "api-key",
        ),
    ] = "authorization"
    proxy: Annotated[
        Secret | None,
        about(
            "Proxy to go through; without it HTTPS_PROXY is honoured.",
            "http://proxy:3128",
            form=PROXY,
        ),
    ] = None
    ca_file: Annotated[
        Path | None,
        about("Certificate authorities (PEM) to trust instead of the system's.", form=PATH),
    ] = None
    order: Annotated[
        Literal["index", "position"],
        about("Where items come without an index: refuse them, or trust their position."),
    ] = "index"
    encoding: Annotated[
        Literal["base64", "float", "none"],
        about("The encoding_format to ask for; none sends no such field. Answers may be either."),
    ] = "base64"


class LlamaUpstream(Struct, frozen=True, kw_only=True):
    """A GGUF file, run here by llama.cpp in a child process."""

    kind: Annotated[Literal["llama"], about("A GGUF file, run here by llama.cpp.")] = "llama"
    model: Annotated[
        Path,
        about("The GGUF file, or a bundled model.", "builtin:all-minilm-l6-v2", form=MODEL),
    ]
    contexts: Annotated[
        Annotated[int, Meta(ge=1, le=1024)] | None,
        about(
            "Texts or chats decoded at the same time; default one text per core, or one chat. "
            "Each chat more needs memory for its whole length."
        ),
    ] = None
    threads: Annotated[
        Annotated[int, Meta(ge=1, le=1024)] | None,
        about(
            "Threads for each text or chat. Default one for a text, which is best; chats share all "
            "cores but one, as threads that wait for a core hold up the others. A chat's answers "
            "may depend on it."
        ),
    ] = None
    n_ctx: Annotated[
        Count | None,
        about(
            "Longest text, or chat with its answer, in tokens; default what the model was trained "
            f"for, and for a chat at most {LONGEST_CHAT}."
        ),
    ] = None
    chat_template: Annotated[
        Path | None,
        about(
            "How messages become a prompt: chatml, gemma, llama3, mistral, or a file with a Jinja "
            "template. Default what the file says.",
            "chatml",
            form=CHAT_TEMPLATE,
        ),
    ] = None
    pooling: Annotated[
        Literal["mean", "cls", "last"] | None,
        about("How a text's token vectors become one; default what the file says."),
    ] = None
    gpu_layers: Annotated[
        Annotated[int, Meta(ge=-1, le=100_000)],
        about("Layers to put on the GPU, -1 for all. Needs a GPU build of llama.cpp."),
    ] = 0
    sha256: Annotated[
        Annotated[str, Meta(pattern=r"^[0-9a-fA-F]{64}$")] | None,
        about("The file's SHA-256; another file is refused at start."),
    ] = None
    load: Annotated[Literal["start", "first-use"], about("When the model is loaded.")] = "start"
    idle: Annotated[
        float | None,
        about(
            'Unload after so long without a call (with load = "first-use").', "10m", form=DURATION
        ),
    ] = None
    concurrency: Annotated[
        Count | None,
        about(
            f"Most calls to it at the same time, per worker. Default {CALLS_AT_ONCE} for texts, "
            "and for chats two more than it answers at the same time; others wait in the gateway, "
            "where each key has its turn."
        ),
    ] = None
    max_queue: Annotated[
        Count | None,
        about(
            "Most texts or chats waiting, per worker; beyond it requests get a 503. Default "
            f"{TEXTS_WAITING} texts, or {CHATS_WAITING} chats."
        ),
    ] = None
    max_queue_per_key: Annotated[Count | None, about(_PER_KEY)] = None

    def contexts_for(self, *, chat: bool) -> int | None:
        """Return how many texts or chats are decoded at the same time; None: one per core."""
        return 1 if chat and self.contexts is None else self.contexts

    def threads_for(self, *, chat: bool) -> int | None:
        """Return the threads of one text or chat; None: chats share all cores but one."""
        return self.threads if chat else self.threads or 1

    def max_queue_for(self, *, chat: bool) -> int:
        """Return how many texts or chats may wait."""
        return self.max_queue or (CHATS_WAITING if chat else TEXTS_WAITING)

    def concurrency_for(self, contexts: int, *, chat: bool) -> int:
        """Return how many calls are made at the same time to an engine with so many contexts."""
        return self.concurrency or (contexts + _CHATS_READY if chat else CALLS_AT_ONCE)

    def context_for(self, trained: int, *, chat: bool) -> int:
        """Return the tokens of the longest text or chat; 0 where neither file nor config says.

        `trained` is what the file says, or 0.
        """
        if not trained:
            return self.n_ctx or 0
        usual = min(trained, LONGEST_CHAT) if chat else trained
        return min(trained, self.n_ctx or usual)

"""The file that tiktoken would download, made from the vocabulary that the gateway brings along.

For LangChain in tests without a network: tiktoken finds the file in TIKTOKEN_CACHE_DIR, and checks
its SHA-256 before it believes it.
"""

import base64
import hashlib
from pathlib import Path

from gateway.tokens import Cl100k

# Source: tiktoken_ext/openai_public.py. tiktoken names a cached file by the SHA-1 of its address.
_ADDRESS = "https://openaipublic.blob.core.windows.net/encodings/cl100k_base.tiktoken"


def write_tiktoken_cache(directory: Path) -> Path:
    """Write the file into `directory`, which TIKTOKEN_CACHE_DIR may then name, and return that."""
    name = hashlib.sha1(_ADDRESS.encode(), usedforsecurity=False).hexdigest()
    ranks = Cl100k().mergeable_ranks.items()
    lines = (base64.b64encode(token) + b" %d\n" % rank for token, rank in ranks)
    (directory / name).write_bytes(b"".join(lines))
    return directory

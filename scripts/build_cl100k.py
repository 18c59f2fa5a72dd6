"""Build the bundled decode table of OpenAI's cl100k_base vocabulary; the same content every time.

    python scripts/build_cl100k.py SOURCE [OUTPUT]

SOURCE is `cl100k_base.tiktoken` itself, or a wheel of llama-index-core, which carries it under its
cache name (the SHA-1 of the address it came from). Its digest is checked against the one tiktoken
expects. The table is xz over one length byte per token, then the bytes of all tokens, both in
the order of their ids. What was built is compared with `SHA256SUMS` beside the bundled table.
Needs the standard library only, and knows nothing of the gateway.
"""

import argparse
import base64
import hashlib
import lzma
import sys
import zipfile
from pathlib import Path

# From tiktoken_ext/openai_public.py.
SOURCE_SHA256 = "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7"
CACHE_NAME = "9b5ad71b2ce5302211f9c61530b329a4922fc6a4"
ASSETS = Path(__file__).resolve().parent.parent / "gateway" / "assets" / "cl100k"
TABLE_NAME = "cl100k_base.xz"
TOKENS = 100_256

# Measured on this table: lc=4 and pb=0 save 2 kB over the preset; token bytes have no alignment.
FILTERS = [
    {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 4, "lp": 0, "pb": 0},
]


def read_source(source: Path) -> bytes:
    """Return the published table; SystemExit if it is not there or is another file."""
    if zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as wheel:
            members = [m for m in wheel.namelist() if m.rsplit("/", 1)[-1] == CACHE_NAME]
            if len(members) != 1:
                raise SystemExit(f"{source}: found {len(members)} files named {CACHE_NAME}")
            data = wheel.read(members[0])
    else:
        data = source.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    if digest != SOURCE_SHA256:
        raise SystemExit(f"{source}: SHA-256 is {digest}, expected {SOURCE_SHA256}")
    return data


def parse(published: bytes) -> list[bytes]:
    """Return the tokens by id; a line is the token in base64, a space and its rank."""
    tokens = []
    for expected, line in enumerate(published.splitlines()):
        encoded, rank = line.split()
        if int(rank) != expected:
            raise SystemExit(f"line {expected + 1}: rank {int(rank)}, expected {expected}")
        tokens.append(base64.b64decode(encoded))
    if len(tokens) != TOKENS:
        raise SystemExit(f"{len(tokens)} tokens, expected {TOKENS}")
    return tokens


def pack(tokens: list[bytes]) -> bytes:
    """Return the table; ValueError where a token has more than 255 bytes (the longest has 128)."""
    content = bytes(len(token) for token in tokens) + b"".join(tokens)
    return lzma.compress(content, format=lzma.FORMAT_XZ, check=lzma.CHECK_CRC64, filters=FILTERS)


def recorded_digest(sums: Path) -> str | None:
    """Return the digest that `SHA256SUMS` holds for the table, or None."""
    if not sums.exists():
        return None
    for line in sums.read_text().splitlines():
        digest, _, name = line.partition("  ")
        if name == TABLE_NAME:
            return digest
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the bundled cl100k_base table.")
    parser.add_argument("source", type=Path, help="cl100k_base.tiktoken, or the wheel")
    parser.add_argument("output", type=Path, nargs="?", default=ASSETS / TABLE_NAME)
    parser.add_argument("--record", action="store_true", help="write the digest to SHA256SUMS")
    arguments = parser.parse_args()

    table = pack(parse(read_source(arguments.source)))
    digest = hashlib.sha256(table).hexdigest()
    print(f"{digest}  {TABLE_NAME}  ({len(table):,} bytes)")
    sums = ASSETS / "SHA256SUMS"
    if arguments.record:
        sums.write_text(f"{digest}  {TABLE_NAME}\n")
    expected = recorded_digest(sums)
    if digest != expected:
        # Another liblzma may pack the same content into other bytes.
        print(f"differs from {sums.name}: {expected} (liblzma?)", file=sys.stderr)
        return 1
    arguments.output.write_bytes(table)
    print(f"same as {sums.name}; written to {arguments.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Files of texts for `gateway embed`, and what it makes of them."""

import json
from pathlib import Path
from typing import Any

TEXTS = [f"text {number}" for number in range(50)]


def written(place: Path, texts: list[str], name: str = "in.txt") -> Path:
    """Return a file with a line for each text."""
    file = place / name
    file.write_bytes(b"".join(text.encode() + b"\n" for text in texts))
    return file


def rows(file: Path) -> list[dict[str, Any]]:
    """Return what was written as JSON lines."""
    return [json.loads(line) for line in file.read_text().splitlines()]

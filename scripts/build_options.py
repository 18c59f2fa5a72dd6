"""Write docs/options.md, the list of all options, from what the options say of themselves.

    python scripts/build_options.py [OUTPUT]

The same text every time; tests/docs compares it with the page.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gateway.config import json_schema

PAGE = Path(__file__).resolve().parent.parent / "docs" / "options.md"
OPENING = """\
# All options

Written by `scripts/build_options.py` from the options' own descriptions. The same are in the
[JSON Schema](../config/schema.json), which `gateway check --schema` prints; how they play together
is in [configuration.md](configuration.md). An option without a default is off, or is decided as
its line says.
"""
TABLES = {
    "server": "[server]",
    "cache": "[cache]",
    "key": "[[keys]]",
    "upstream-openai": '[upstreams.NAME], kind = "openai"',
    "upstream-llama": '[upstreams.NAME], kind = "llama"',
    "model": '[models."NAME"]',
}
"""The tables of a file by their definition in the schema."""


def page(schema: Mapping[str, Any]) -> str:
    """Return the whole page."""
    parts = [OPENING]
    for definition, table in TABLES.items():
        found = schema["definitions"][definition]
        parts.append(f"## {table}\n\n{found['description']}\n\n" + "\n".join(_rows(found)) + "\n")
    return "\n".join(parts)


def _rows(definition: Mapping[str, Any]) -> Iterator[str]:
    yield "| option | default | for example | |"
    yield "|---|---|---|---|"
    required = definition.get("required", [])
    for name, option in definition["properties"].items():
        default = _toml(option["default"]) if "default" in option else ""
        default = "**needed**" if name in required else default
        example = next(map(_toml, option.get("examples", [])), "")
        example = "" if example == default else example
        yield f"| `{name}` | {default} | {example} | {_cell(option['description'])} |"


def _toml(value: Any) -> str:
    """Return a value as the file has it, as code in a cell."""
    if isinstance(value, dict):
        inner = ", ".join(f"{_name(k)} = {_value(v)}" for k, v in value.items())
        return f"`{{ {inner} }}`" if inner else ""
    return f"`{_value(value)}`" if value != [] else ""


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_name(k)} = {_value(v)}" for k, v in value.items()) + " }"
    return json.dumps(value, ensure_ascii=False)


def _name(name: str) -> str:
    bare = name.replace("-", "").replace("_", "").isalnum()
    return name if bare else json.dumps(name)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;")


if __name__ == "__main__":
    (Path(sys.argv[1]) if len(sys.argv) > 1 else PAGE).write_text(page(json_schema()))

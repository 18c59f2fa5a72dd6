"""Which chat template: one that the config gives, one of ours by its name, or the file's own.

Knows where templates are; not what is in them.
"""

from importlib.resources import files

from gateway.engine.faults import RefusedError
from gateway.gguf import read_header

_KEY = "tokenizer.chat_template"


def template_names() -> list[str]:
    """Return the names of the templates that we have."""
    ours = (files("gateway.engine.chat") / "templates").iterdir()
    return sorted(file.name.removesuffix(".jinja") for file in ours)


def find_template(model: str, asked: str | None) -> tuple[str, str]:
    """Return the template's source and where it is from; raises RefusedError.

    `model` is the GGUF file's path; `asked` is a name, the text of a template, or None. Where it is
    from is a name, "config" or "file".
    """
    if asked in (names := template_names()):
        source = files("gateway.engine.chat") / "templates" / f"{asked}.jinja"
        return source.read_text("utf-8"), str(asked)
    if asked is not None:
        return asked, "config"
    own = read_header(model).metadata.get(_KEY)
    if not isinstance(own, str):
        raise RefusedError(
            "the file holds no chat template: set `chat_template` to a Jinja file or one of these"
            f" names, whichever the model was trained on: {', '.join(names)}"
        )
    return own, "file"

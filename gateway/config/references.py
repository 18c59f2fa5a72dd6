"""`${env:NAME}` and `${file:PATH}`: the only place where the config reads the environment."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.config.files import opened
from gateway.config.problems import KeyPath, MisfitError, Problem, Reference, quote

_REFERENCE = re.compile(r"\$?\$\{([^}]*)\}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LARGEST_FILE = 65_536


class AbsentError(MisfitError):
    """What a reference names is not there, or empty."""


class References:
    """Puts in what references name; what cannot be had is in `absent`, or else in `problems`."""

    def __init__(self, environ: Mapping[str, str], base_dir: Path) -> None:
        self.problems: list[Problem] = []
        self.absent: list[Problem] = []
        """What could be had elsewhere: the variable or the file is missing here."""
        self._environ = environ
        self._base_dir = base_dir

    def resolve(self, value: Any, path: KeyPath = ()) -> Any:
        """Return the value with every reference in its texts replaced; ``$${`` means ``${``."""
        match value:
            case dict():
                return {key: self.resolve(item, (*path, key)) for key, item in value.items()}
            case list():
                return [self.resolve(item, (*path, place)) for place, item in enumerate(value)]
            case str() if "${" in value:
                return self._text(value, path)
        return value

    def _text(self, text: str, path: KeyPath) -> str:
        outside = False

        def put_in(match: re.Match[str]) -> str:
            nonlocal outside
            if match[0].startswith("$$"):
                return match[0][1:]
            outside = True
            return self._named(match[1])

        try:
            full = _REFERENCE.sub(put_in, text)
        except MisfitError as misfit:
            noted = self.absent if isinstance(misfit, AbsentError) else self.problems
            noted.append(Problem(path, str(misfit)))
            # Not the text as it stands: what reads it next would complain of "${" a second time.
            return Reference("")
        return Reference(full) if outside else full

    def _named(self, name: str) -> str:
        kind, _, rest = name.partition(":")
        if kind == "env":
            return self._variable(rest)
        if kind == "file":
            return self._file(rest)
        if _NAME.fullmatch(name):
            raise MisfitError(
                f"${{{name}}} is not a reference; write ${{env:{name}}} for the environment "
                f"variable, or $${{{name}}} for that very text"
            )
        raise MisfitError("this is not a reference; write ${env:NAME} or ${file:PATH}")

    def _variable(self, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise MisfitError("what follows env: is not the name of an environment variable")
        value = self._environ.get(name)
        if value is None:
            raise AbsentError(f"the environment variable {name} is not set")
        if not value:
            raise AbsentError(f"the environment variable {name} is empty")
        if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
            raise MisfitError(f"the environment variable {name} is not UTF-8")
        return value

    def _file(self, name: str) -> str:
        path = self._base_dir / name
        try:
            with opened(path) as file:
                content = file.read(_LARGEST_FILE + 1)
            text = content.decode()
        except UnicodeDecodeError as error:
            raise MisfitError(f"the file {quote(name)} is not UTF-8") from error
        except ValueError as error:
            raise MisfitError(f"the file {quote(name)} cannot be read: not a path") from error
        except OSError as error:
            raise AbsentError(f"the file {quote(name)} cannot be read: {error.strerror}") from error
        if len(content) > _LARGEST_FILE:
            raise MisfitError(f"the file {quote(name)} is larger than 64 KiB")
        text = text.rstrip("\r\n")
        if not text:
            raise AbsentError(f"the file {quote(name)} is empty")
        return text

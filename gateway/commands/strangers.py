"""Words of somebody else, on their way to a terminal."""


def plain(words: str) -> str:
    """Return them as one line, without what would steer a terminal, or is no XML."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in words)

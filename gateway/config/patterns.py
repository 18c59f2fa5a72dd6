"""Names with `*` in them: how specific they are, and whether two can mean the same name."""


def is_pattern(name: str) -> bool:
    """Return whether the name stands for every name that fits it."""
    return "*" in name


def literal_length(pattern: str) -> int:
    """Return how many characters are fixed; of two fitting patterns the longer one wins."""
    return len(pattern) - pattern.count("*")


def overlap(one: str, other: str) -> bool:
    """Return whether some name fits both patterns. Exact: `*` is any run of characters.

    A table over prefixes, as for an edit distance: O(len(one) * len(other)).
    """
    row = [True]
    for right in other:
        row.append(row[-1] and right == "*")
    for left in one:
        below = [row[0] and left == "*"]
        for column, right in enumerate(other):
            if "*" in (left, right):
                # The star takes nothing, or the other side's character.
                fits = row[column + 1] or below[column]
            else:
                fits = row[column] and left == right
            below.append(fits)
        row = below
    return row[-1]

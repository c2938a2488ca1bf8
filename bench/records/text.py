"""Show a text that is somebody's input on one line."""

LONGEST = 300
_GROUPED = 10_000  # from here on the digits of a number are grouped


def counted(number: int, thing: str) -> str:
    """A number of things: `1 case`, `2 cases`, `3 processes`, `10,000 rows`."""
    many = f"{thing}es" if thing.endswith("s") else f"{thing}s"
    return f"{number:{',' if number >= _GROUPED else ''}} {thing if number == 1 else many}"


def one_line(text: object, longest: int | None = LONGEST) -> str:
    """The text on one line, as a terminal, a CSV and any file may hold it.

    Line breaks become spaces. Control characters and what is no character at all are shown, as `\\x1b`, not
    sent: nothing moves the cursor or sets colours.

    Args:
        longest: a longer text loses its middle; None keeps all of it.
    """
    shown = " ".join(str(text).splitlines())
    if not shown.isprintable():
        shown = "".join(
            character if character.isprintable() else character.encode("unicode_escape").decode()
            for character in shown
        )
    if longest is None or len(shown) <= longest:
        return shown
    start = longest * 2 // 3
    return f"{shown[:start]} … {shown[len(shown) - (longest - start - 3) :]}"

"""Parses a command's arguments, and says which options it has where one is not known."""

import argparse
import difflib
from collections.abc import Iterable
from itertools import takewhile
from typing import Any, NoReturn


class CommandParser(argparse.ArgumentParser):
    """The parser of one command: whatever it does not know is its own error, below its own usage."""

    def parse_known_args(self, args=None, namespace=None) -> Any:
        given = list(args or ())
        for argument in takewhile(lambda each: each != "--", given):
            self._check_option(argument.partition("=")[0])
        chosen, unknown = super().parse_known_args(given, namespace)
        if unknown:
            self._refuse(unknown[0])
        return chosen, unknown

    def _check_option(self, name: str) -> None:
        """Before anything else: where an option is misspelt, the right one may seem to be missing."""
        known = list(self._option_string_actions)
        begins_one = any(option.startswith(name) for option in known)  # argparse takes that
        if name.startswith("--") and " " not in name and not begins_one:
            self.error(f"no option {name}; {nearest(name, known)}")

    def _refuse(self, argument: str) -> NoReturn:
        if argument.startswith("-"):
            self.error(f"no option {argument}; {nearest(argument, self._option_string_actions)}")
        self.error(f"takes no argument {argument!r}")


def nearest(name: str, known: Iterable[str]) -> str:
    """`did you mean --shape?`; or, where nothing is near, all that are known."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=2, cutoff=0.7)
    return f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known)}"

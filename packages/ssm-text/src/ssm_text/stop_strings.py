"""Where a text ends: the strings before which generation stops, wherever tokens begin and end."""

from __future__ import annotations

from collections.abc import Sequence

from ssm_core.errors import ConfigError


class StopStrings:
    """Lets text through up to the first stop string, piece by piece.

    The text ends before the stop string that is complete first (the longest, if several are with
    the same character). Text that may be the beginning of one is held back until that is decided.

    Args:
        stops: the strings; none lets everything through.
    Raises:
        ConfigError: an empty one.

    Cost: O(length of the stop strings) per character.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        if isinstance(stops, str):
            raise ConfigError(f"stop is the string {stops!r}, expected a list of strings")
        if not all(stops):
            raise ConfigError("stop has an empty string, expected one character or more")
        self._stops = sorted(stops, key=len, reverse=True)
        self._held = ""
        self.found = False

    def push(self, text: str) -> str:
        """Take more text; what certainly stands before any stop string and was not given yet."""
        free = ""
        for character in text:
            if self.found:
                break
            self._held += character
            ended = next((stop for stop in self._stops if self._held.endswith(stop)), None)
            if ended is not None:
                self.found = True
                free, self._held = free + self._held[: -len(ended)], ""
            else:
                kept = self._beginning()
                free += self._held[: len(self._held) - kept]
                self._held = self._held[len(self._held) - kept :]
        return free

    def finish(self) -> str:
        """What was held back, at the end of all text."""
        held, self._held = self._held, ""
        return held

    def _beginning(self) -> int:
        """Length of the longest end of the held text that a stop string begins with."""
        most = min(len(self._held), max(map(len, self._stops), default=0))
        ends = (self._held[-n:] for n in range(most, 0, -1))
        return next((len(e) for e in ends if any(s.startswith(e) for s in self._stops)), 0)

"""Stop strings in text that arrives in pieces."""

from __future__ import annotations

from collections.abc import Sequence

from geex_jax import languages
from geex_jax.errors import GeexError


class StopScanner:
    """Passes text on up to the first stop string, and never a character of one.

    The end of the text is held back while it may be the beginning of a stop string. Of several,
    the one that is complete first counts; of those that end together, the longest.

    Args:
      stops: strings, none of them empty.
    """

    def __init__(self, stops: Sequence[str]):
        if any(not s for s in stops):
            raise GeexError("an empty stop string", "leave it out")
        self._stops = tuple(stops)
        self._held = ""
        self.stopped = False

    def push(self, text: str) -> str:
        """Takes the next piece; returns what is certain to stand before any stop string."""
        if self.stopped:
            return ""
        text = self._held + text
        places = [(text.find(s) + len(s), text.find(s)) for s in self._stops if s in text]
        if places:
            self.stopped, self._held = True, ""
            return text[: min(places)[1]]
        keep = max((_overlap(text, s) for s in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """Ends the text; returns what was held back."""
        text, self._held = self._held, ""
        return text


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)


class EndScanner:
    """Passes text on up to where a language's end rule ends it; see `languages.EndRule`.

    Raises:
      GeexError: no such language, or one without a rule.
    """

    def __init__(self, language: str):
        self._rule = languages.end_rule(language)
        self._held = ""
        self.stopped = False

    def push(self, text: str) -> str:
        """Takes the next piece; returns what is certain to belong to the completion."""
        if self.stopped:
            return ""
        text, before = self._held + text, len(self._held)
        for i in range(before, len(text)):
            if self._rule.feed(text[i]):
                self.stopped, self._held = True, ""
                return text[: i + 1 - self._rule.cut]
        keep = self._rule.held
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """Ends the text; returns what was held back."""
        text, self._held = self._held, ""
        return text

"""The comment lines at the head of a text that arrives in pieces."""

from __future__ import annotations

from collections.abc import Sequence


class CommentLines:
    """Passes on what stands in comment lines, up to the first other line.

    Signs and one space behind each go away. The text begins behind the sign of its first line.

    Args:
      signs: (sign) that opens a comment line, or (opening, closing) of a comment block, which
        ends at the closing one.
    """

    def __init__(self, signs: Sequence[str]):
        self._open = signs[0]
        self._close = signs[1] if len(signs) > 1 else None
        self._held = ""
        self._fresh = False  # at the beginning of a line, whose sign has not been seen
        self._space = True  # behind a sign
        self.stopped = False

    def push(self, text: str) -> str:
        """Takes the next piece; returns what is certain to belong to the comment."""
        self._held += text
        if self._close and not self._spaced():
            return ""
        return self._take_block() if self._close else self._take_lines()

    def flush(self) -> str:
        """Ends the text; returns what was held back."""
        rest = "" if self.stopped or self._fresh else self._held
        self._held = ""
        return rest

    def _take_block(self) -> str:
        assert self._close is not None
        if self.stopped:
            return ""
        found = self._held.find(self._close)
        if found >= 0:
            self.stopped = True
            text, self._held = self._held[:found], ""
            return text
        keep = len(self._close) - 1
        cut = max(len(self._held) - keep, 0)
        text, self._held = self._held[:cut], self._held[cut:]
        return text

    def _take_lines(self) -> str:
        out = ""
        while not self.stopped:
            if self._fresh:
                bare = self._held.lstrip(" \t")
                if len(bare) < len(self._open) and self._open.startswith(bare):
                    break  # the sign may still come
                if not bare.startswith(self._open):
                    self.stopped, self._held = True, ""
                    break
                self._held, self._fresh, self._space = bare[len(self._open) :], False, True
                out += "\n"
            if not self._spaced():
                break
            line, newline, rest = self._held.partition("\n")
            out += line
            self._held = rest
            if not newline:
                break
            self._fresh = True
        return out

    def _spaced(self) -> bool:
        """Drops the space behind a sign; False: whether there is one is not known yet."""
        if self._space and self._held:
            self._held, self._space = self._held.removeprefix(" "), False
        return not self._space

"""The section of RESULTS.md on GPUs, which another command writes than the rest of the file."""

from __future__ import annotations

MARK = "<!-- From here on written by `make bench-cuda`. -->"
NOT_RUN = "## On a GPU\n\nNot yet run on a GPU (`make bench-cuda`).\n"


def replaced(results: str, text: str) -> str:
    """The results with `text` as the section on GPUs."""
    return f"{results.split(MARK)[0].rstrip()}\n\n{MARK}\n\n{text}"


def kept(results: str, text: str) -> str:
    """A new text of the rest, with the section of the old results."""
    _, mark, old = results.partition(MARK)
    return replaced(text, old.lstrip() if mark else NOT_RUN)

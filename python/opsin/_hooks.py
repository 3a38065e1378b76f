"""Registries of hooks and the handles that take a hook out again."""

from __future__ import annotations

import itertools
import weakref
from typing import Any

_ids = itertools.count()


class HookDict(dict[int, Any]):
    """Hooks by id, in the order in which they run. A dict that handles can refer to weakly."""

    __slots__ = ("__weakref__",)

    def __reduce__(self) -> Any:
        return HookDict, (dict(self),)

    def prepend(self, key: int) -> None:
        """Moves `key`, just added, before all others."""
        items = list(self.items())
        self.clear()
        self.update([items[-1], *items[:-1]])
        assert next(iter(self)) == key


class RemovableHandle:
    """Returned by the `register_*_hook` methods.

    `remove()`, or leaving a `with` block, takes the hook out again.
    """

    __slots__ = ("__weakref__", "_hooks", "_others", "id")

    def __init__(self, hooks: HookDict, *others: set[int]) -> None:
        self.id = next(_ids)
        self._hooks = weakref.ref(hooks)
        # Sets of ids that mark hooks with an option; they live in the module, as the hooks do.
        self._others = others

    def remove(self) -> None:
        hooks = self._hooks()
        if hooks is not None:
            hooks.pop(self.id, None)
        for marked in self._others:
            marked.discard(self.id)

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()

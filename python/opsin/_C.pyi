# ruff: noqa: N999
from typing import Any

def __getattr__(name: str) -> Any: ...

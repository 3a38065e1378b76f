# For the type checker alone: a peer of the benchmarks that need not be installed.
from typing import Any

def __getattr__(name: str) -> Any: ...

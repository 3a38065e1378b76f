# For the type checker alone: PyTorch need not be installed, and what tests do with it is not checked.
from typing import Any

def __getattr__(name: str) -> Any: ...

"""The functions behind the layers: `conv2d`, `relu`, `cross_entropy`, ... as in `torch.nn.functional`."""

from typing import Any

from opsin import _C
from opsin._left_out import explain as _explain


def __getattr__(name: str) -> Any:
    raise AttributeError(_explain("opsin.nn.functional", name))


globals().update(_C._namespace("nn.functional"))

"""The functions behind the layers: `conv2d`, `relu`, `cross_entropy`, ... as in `torch.nn.functional`."""

from typing import TYPE_CHECKING, Any

from opsin._C._nn_functional import *  # noqa: F403
from opsin._left_out import explain as _explain

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        raise AttributeError(_explain("opsin.nn.functional", name))

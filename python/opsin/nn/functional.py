"""The functions behind the layers: `conv2d`, `relu`, `cross_entropy`, ... as in `torch.nn.functional`."""

import warnings as _warnings
from functools import wraps as _wraps
from typing import TYPE_CHECKING, Any

from opsin._C._nn_functional import *  # noqa: F403
from opsin._left_out import explain as _explain
from opsin.nn._fractional import fractional_max_pool1d, fractional_max_pool2d, fractional_max_pool3d  # noqa: F401
from opsin.nn._interpolate import interpolate as interpolate
from opsin.nn._multi_head import multi_head_attention_forward as multi_head_attention_forward

if not TYPE_CHECKING:

    def _with_warning(loss: Any) -> Any:
        """`loss` with PyTorch's warning about the usual cause of one that does not fall."""

        @_wraps(loss)
        def checked(input: Any, target: Any, *args: Any, **kwargs: Any) -> Any:
            if input.shape != target.shape:
                _warnings.warn(
                    f"Using a target size ({target.shape}) that is different to the input size "
                    f"({input.shape}). This will likely lead to incorrect results due to broadcasting. "
                    "Please ensure they have the same size.",
                    stacklevel=2,
                )
            return loss(input, target, *args, **kwargs)

        return checked

    for _name in ("huber_loss", "l1_loss", "mse_loss", "smooth_l1_loss"):
        globals()[_name] = _with_warning(globals()[_name])

    def __getattr__(name: str) -> Any:
        raise AttributeError(_explain("opsin.nn.functional", name))

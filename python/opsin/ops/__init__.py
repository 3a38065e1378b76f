"""Vision ops, with the names of `torchvision.ops` where it has them."""

from opsin._C._ops import *  # noqa: F403

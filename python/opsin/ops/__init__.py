"""Vision ops, with the names of `torchvision.ops`."""

from opsin._C._ops import *  # noqa: F403

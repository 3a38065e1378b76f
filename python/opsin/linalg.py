"""Linear algebra, with the names of `torch.linalg` as far as they exist here."""

from opsin._C._linalg import *  # noqa: F403

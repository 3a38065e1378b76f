"""Linear algebra, with the names of `torch.linalg` as far as they exist here."""

from opsin import _C

globals().update(_C._namespace("linalg"))

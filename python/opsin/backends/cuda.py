"""How GPUs compute."""

from opsin._C import _cuda as _C

__all__ = ["is_built", "matmul"]


class _Matmul:
    """Settings of matrix products."""

    @property
    def allow_tf32(self) -> bool:
        """Whether float32 operands may be rounded to TF32 (10 bits of mantissa). False at first."""
        return _C.allow_tf32_matmul()

    @allow_tf32.setter
    def allow_tf32(self, allow: bool) -> None:
        _C.set_allow_tf32_matmul(allow)


matmul = _Matmul()


def is_built() -> bool:
    """Whether the package has its CUDA plug-in, with a GPU or without."""
    return _C.is_built()

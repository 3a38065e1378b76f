"""The profiler under the name that `torch.autograd` has for it."""

from opsin.profiler import profile, record_function

__all__ = ["profile", "record_function"]

"""What the engine spends its time, memory and arithmetic on, as in `torch.profiler`."""

from opsin.profiler._events import EventList, FunctionEvent, FunctionEventAvg
from opsin.profiler._profile import ProfilerActivity, profile, record_function

__all__ = [
    "EventList",
    "FunctionEvent",
    "FunctionEventAvg",
    "ProfilerActivity",
    "profile",
    "record_function",
]

"""Mixed precision as in `torch.amp`: `autocast` picks the dtype of each op, `GradScaler` scales losses."""

from opsin.amp.autocast_mode import autocast, is_autocast_available
from opsin.amp.grad_scaler import GradScaler

__all__ = ["GradScaler", "autocast", "is_autocast_available"]

"""Image transforms on NumPy batches, seeded by the generator they are given."""

from opsin.transforms.batch import Normalize, RandomHorizontalFlip, RandomShift, Transform

__all__ = ["Normalize", "RandomHorizontalFlip", "RandomShift", "Transform"]

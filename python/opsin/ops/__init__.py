"""Operators of computer vision, with the names and arguments of `torchvision.ops`."""

from opsin._C._ops import *  # noqa: F403
from opsin.ops._anchors import AnchorGenerator as AnchorGenerator
from opsin.ops._anchors import anchors_inside as anchors_inside
from opsin.ops._box_coder import BoxCoder as BoxCoder
from opsin.ops._fcos import centerness as centerness
from opsin.ops._fcos import fcos_points as fcos_points
from opsin.ops._fcos import fcos_scores as fcos_scores
from opsin.ops._fcos import fcos_targets as fcos_targets
from opsin.ops._matching import BalancedPositiveNegativeSampler as BalancedPositiveNegativeSampler
from opsin.ops._matching import Matcher as Matcher

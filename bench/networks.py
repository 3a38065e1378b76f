"""The networks of the race, and how to train and to run one in either library.

Both libraries run the same source, a file of `bench/nets` or of `opsin/models`: for PyTorch its
`from opsin import` becomes `from torch import`. Nothing here imports the library that is not asked for.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Net:
    """A class or function of a source file with its arguments, the shape of an image and the batches.

    trains, runs: batches of training and of inference.
    pixels: labels are per pixel.
    large: not part of a quick run.
    """

    name: str
    source: str
    make: str
    arguments: tuple[Any, ...]
    image: tuple[int, ...]
    classes: int
    trains: tuple[int, ...] = (8,)
    runs: tuple[int, ...] = (8, 1)
    pixels: bool = False
    large: bool = True


def _small(
    name: str, widths: tuple[int, ...], blocks: tuple[int, ...], image: tuple[int, ...], batch: int
) -> Net:
    arguments = (image[0], 10, widths, blocks)
    return Net(name, "small_resnet", "SmallResNet", arguments, image, 10, (batch,), (batch, 1), large=False)


_IMAGE = (3, 224, 224)
DIGITS = _small("digits_resnet, 1x8x8", (32, 64), (1, 1), (1, 8, 8), 64)
SMALL = _small("small_resnet, 3x32x32", (32, 64, 128), (2, 2, 2), (3, 32, 32), 32)
RESNET18 = Net("ResNet-18", "resnet", "resnet18", (), _IMAGE, 1000)
RESNET50 = Net("ResNet-50", "resnet", "resnet50", (), _IMAGE, 1000)
UNET = Net("U-Net, 3x128x128", "unet", "UNet", (), (3, 128, 128), 2, (2,), (2, 1), pixels=True)
C3D = Net("C3D", "c3d", "C3D", (), (3, 16, 112, 112), 487, (1,), (1,))
# Not in the race: most of its training step is the update of 138 million weights.
VGG16 = Net("VGG-16", "vgg", "VGG16", (), _IMAGE, 1000)
NETS = (
    DIGITS,
    SMALL,
    RESNET18,
    Net("ResNet-18 in place", "resnet", "resnet18", (True,), _IMAGE, 1000, (8,), ()),
    RESNET50,
    Net("ResNet-50 in place", "resnet", "resnet50", (True,), _IMAGE, 1000, (8,), ()),
    Net("MobileNet v2", "mobilenet_v2", "MobileNetV2", (), _IMAGE, 1000),
    UNET,
    C3D,
    Net("ViT-S", "vit", "ViT", (), _IMAGE, 1000),
)
BY_NAME = {net.name: net for net in NETS}


def _source(name: str) -> Path:
    path = Path(__file__).resolve().parent / "nets" / f"{name}.py"
    if path.exists():
        return path
    spec = importlib.util.find_spec("opsin")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("networks: expected an importable opsin (make build)")
    return Path(spec.origin).parent / "models" / path.name


def build(library: str, net: Net) -> Any:
    """An untrained network, the same in every process with this library."""
    importlib.import_module(library).manual_seed(0)
    path = _source(net.source)
    source = path.read_text(encoding="utf-8").replace("from opsin", f"from {library}")
    module = ModuleType(f"{net.source}_of_{library}")
    exec(compile(source, str(path), "exec"), module.__dict__)
    return getattr(module, net.make)(*net.arguments)


def batch(library: Any, net: Net, size: int) -> tuple[Any, Any]:
    """Images `[N, C, *spatial]` and labels `[N]`, or `[N, *spatial]` for pixels."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((size, *net.image), dtype=np.float32)
    shape = (size, *net.image[1:]) if net.pixels else (size,)
    return library.tensor(images), library.tensor(rng.integers(0, net.classes, shape))


def _autocast(library: Any, dtype: str, device: str = "cpu") -> Any:
    if dtype == "float32":
        return contextlib.nullcontext()
    if not hasattr(library, "amp"):
        raise NotImplementedError(f"{library.__name__} has no autocast yet")
    return library.amp.autocast(device, dtype=getattr(library, dtype))


def optimizer(library: Any, model: Any) -> Any:
    """Stochastic gradient descent with momentum."""
    # PyTorch's fused step is its fastest; Opsin's is always fused.
    options = {"fused": True} if library.__name__ == "torch" else {}
    return library.optim.SGD(
        model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, nesterov=True, **options
    )


def training_step(
    library: Any,
    model: Any,
    images: Any,
    labels: Any,
    dtype: str,
    device: str = "cpu",
    *,
    steps_with: Any = None,
) -> Callable[[], Any]:
    """A step of an optimizer, by default a new `optimizer()`, which returns the loss before it.

    Other dtypes than float32 are under autocast.
    """
    _autocast(library, dtype)  # raises where there is none, before the peers are built
    update = steps_with or optimizer(library, model)
    cross_entropy = library.nn.functional.cross_entropy
    model.train()

    def step() -> Any:
        update.zero_grad()
        with _autocast(library, dtype, device):
            loss = cross_entropy(model(images), labels)
        loss.backward()
        update.step()
        return loss.detach()

    return step


def inference(library: Any, model: Any, images: Any, dtype: str) -> Callable[[], Any]:
    """The logits; in other dtypes than float32 weights and images have that dtype."""
    model.eval()
    if dtype != "float32":
        model, images = model.to(getattr(library, dtype)), images.to(getattr(library, dtype))

    def call() -> Any:
        with library.inference_mode():
            return model(images)

    return call


def channels_last(torch: Any, net: Net, value: Any) -> Any:
    """A model or images of PyTorch in its layout for images."""
    kind = torch.channels_last if len(net.image) == 3 else torch.channels_last_3d
    if isinstance(value, torch.nn.Module):
        return value.to(memory_format=kind)
    return value.contiguous(memory_format=kind)


def torch_call(net: Net, size: int, train: bool, dtype: str, last: bool) -> Callable[[], Any]:
    """A training step or an inference in PyTorch, from its own seed; `last` in the channels-last layout."""
    import torch

    model, (images, labels) = build("torch", net), batch(torch, net, size)
    if last:
        model, images = (channels_last(torch, net, value) for value in (model, images))
    if train:
        return training_step(torch, model, images, labels, dtype)
    return inference(torch, model, images, dtype)

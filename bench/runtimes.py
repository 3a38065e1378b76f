"""Inference by ONNX Runtime and OpenVINO on the network that PyTorch exports."""

from __future__ import annotations

import importlib.util
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import networks
import numpy as np

_MODULES = {"ONNX Runtime": "onnxruntime", "OpenVINO": "openvino"}


def missing() -> list[str]:
    """Peers whose packages are not installed."""
    exporter = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    return [
        f"{peer} (pip install {' '.join([module, *exporter])})"
        for peer, module in _MODULES.items()
        if exporter or importlib.util.find_spec(module) is None
    ]


@lru_cache(maxsize=2)  # the batches of a network, once more in bfloat16
def _exported(net: networks.Net, size: int) -> tuple[bytes, np.ndarray]:
    import torch

    model, (images, _) = networks.build("torch", net).eval(), networks.batch(torch, net, size)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        path = Path(folder) / "model.onnx"
        torch.onnx.export(model, (images,), path, input_names=["x"], dynamo=True, external_data=False)
        return path.read_bytes(), images.numpy()


def calls(net: networks.Net, size: int, dtype: str, threads: int) -> Iterator[tuple[str, Callable[[], Any]]]:
    """The installed runtimes with a call each that returns the logits; ONNX Runtime in float32 only."""
    absent = missing()
    if len(absent) == len(_MODULES):
        return
    model, images = _exported(net, size)
    if dtype == "float32" and not any("ONNX Runtime" in name for name in absent):
        yield "ONNX Runtime", _onnx_runtime(model, images, threads)
    if not any("OpenVINO" in name for name in absent):
        yield "OpenVINO", _openvino(model, images, dtype, threads)


def _onnx_runtime(model: bytes, images: np.ndarray, threads: int) -> Callable[[], Any]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"x": images})[0]


def _openvino(model: bytes, images: np.ndarray, dtype: str, threads: int) -> Callable[[], Any]:
    import openvino

    core = openvino.Core()
    # Its default is bfloat16 wherever the processor has it.
    precision = {"float32": "f32", "bfloat16": "bf16"}[dtype]
    settings = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = core.compile_model(core.read_model(io.BytesIO(model)), "CPU", settings)
    request = compiled.create_infer_request()
    # A copy of the images, which belongs to the request; what is shared would have to be kept alive here.
    request.set_input_tensor(openvino.Tensor(images, shared_memory=False))

    def call() -> np.ndarray:
        request.infer()
        return request.get_output_tensor().data

    return call

"""What PyTorch has and Opsin leaves out on purpose, and the message for whoever asks for it."""

_REASONS = {
    "sparse tensors": "sparse sparse_coo_tensor sparse_csr_tensor sparse_csc_tensor "
    "sparse_compressed_tensor sparse_coo "
    "sparse_csr sparse_csc to_sparse SparseAdam",
    "quantized tensors": "quantization quantize_per_tensor quantize_per_channel quantize_per_tensor_dynamic "
    "dequantize "
    "qint8 quint8 qint32 ao intrinsic qat quantized",
    "named tensors": "rename align_to refine_names align_tensors",
    "nested tensors": "nested",
    "meta tensors": "meta _meta_registrations",
    "TorchScript": "jit script trace_module ScriptModule ScriptFunction",
    "graph rewriting with torch.fx": "fx compile export _dynamo _inductor",
    "remote procedure calls": "rpc distributed",
    "special functions beyond the listed ones": "special",
    "adaptive softmax": "AdaptiveLogSoftmaxWithLoss",
    "general eigenvalues, LU factors and matrix exponentials": "eig eigvals lu lu_factor lu_solve matrix_exp",
}
_LEFT_OUT = {name: reason for reason, names in _REASONS.items() for name in names.split()}


def explain(module: str, name: str) -> str:
    """The text of the AttributeError for `module.name`."""
    reason = _LEFT_OUT.get(name)
    if reason is None:
        return f"module {module!r} has no attribute {name!r}"
    return f"module {module!r} has no attribute {name!r}: Opsin leaves out {reason} on purpose"

// DLPack, both ways, without copies. Structures by the standard: https://dmlc.github.io/dlpack/latest/
#include "python_tensor.h"

namespace opsin::python {

namespace {

struct DLDevice {
  int32_t device_type;
  int32_t device_id;
};
struct DLDataType {
  uint8_t code;
  uint8_t bits;
  uint16_t lanes;
};
struct DLTensor {
  void* data;
  DLDevice device;
  int32_t ndim;
  DLDataType dtype;
  int64_t* shape;
  int64_t* strides;
  uint64_t byte_offset;
};
struct DLManagedTensor {
  DLTensor dl_tensor;
  void* manager_ctx;
  void (*deleter)(DLManagedTensor*);
};

constexpr int32_t kDLCPU = 1;
enum : uint8_t { kDLInt = 0, kDLUInt = 1, kDLFloat = 2, kDLBfloat = 4, kDLComplex = 5, kDLBool = 6 };

DLDataType to_dlpack_type(DType dtype) {
  const auto bits = static_cast<uint8_t>(8 * item_size(dtype));
  const uint8_t code = dtype == opsin::kBool      ? kDLBool
                       : dtype == kUInt8          ? kDLUInt
                       : dtype == kBFloat16       ? kDLBfloat
                       : is_complex(dtype)        ? kDLComplex
                       : is_floating_point(dtype) ? kDLFloat
                                                  : kDLInt;
  return {code, bits, 1};
}

DType from_dlpack_type(DLDataType type) {
  for (int i = 0; i < kNumDTypes; ++i) {
    const DLDataType own = to_dlpack_type(static_cast<DType>(i));
    if (own.code == type.code && own.bits == type.bits && type.lanes == 1) return static_cast<DType>(i);
  }
  detail::raise<TypeError>("from_dlpack: no dtype for DLPack code ", int{type.code}, " with ", int{type.bits},
                           " bits and ", type.lanes, " lanes");
}

/// What an exported tensor owns until the consumer is done with it.
struct Export {
  explicit Export(Tensor tensor_)
      : tensor(std::move(tensor_)), sizes(tensor.sizes()), strides(tensor.strides()) {
    managed.dl_tensor = {tensor.impl()->mutable_data(),
                         {kDLCPU, 0},
                         static_cast<int32_t>(tensor.dim()),
                         to_dlpack_type(tensor.dtype()),
                         sizes.data(),
                         strides.data(),
                         0};
    managed.manager_ctx = this;
    managed.deleter = [](DLManagedTensor* self) { delete static_cast<Export*>(self->manager_ctx); };
    tensor.impl()->storage->escaped = true;
  }
  Tensor tensor;
  Dims sizes, strides;
  DLManagedTensor managed{};
};

py::object to_dlpack(const Tensor& tensor, const py::object& stream) {
  OPSIN_CHECK(Error, !tensor.requires_grad(),
              "__dlpack__: Can't export tensors that require gradient, use tensor.detach()");
  OPSIN_CHECK(ValueError, stream.is_none(), "__dlpack__: stream must be None for tensors on the CPU");
  auto exported = std::make_unique<Export>(tensor.detach());
  PyObject* capsule = PyCapsule_New(&exported->managed, "dltensor", [](PyObject* self) {
    // A consumer renames the capsule and takes over the tensor.
    if (!PyCapsule_IsValid(self, "dltensor")) return;
    auto* managed = static_cast<DLManagedTensor*>(PyCapsule_GetPointer(self, "dltensor"));
    managed->deleter(managed);
  });
  if (!capsule) throw py::error_already_set();
  (void)exported.release();
  return py::reinterpret_steal<py::object>(capsule);
}

void drop_import(void* context, void*, size_t) {
  auto* managed = static_cast<DLManagedTensor*>(context);
  if (!managed->deleter || !Py_IsInitialized()) return;
  // The producer's deleter may drop Python objects.
  const py::gil_scoped_acquire gil;
  managed->deleter(managed);
}

Tensor from_dlpack(const py::object& source) {
  py::object capsule = source;
  if (!PyCapsule_CheckExact(source.ptr())) {
    OPSIN_CHECK(TypeError, py::hasattr(source, "__dlpack__"),
                "from_dlpack: expected an object with __dlpack__ or a capsule, got ",
                Py_TYPE(source.ptr())->tp_name);
    capsule = source.attr("__dlpack__")();
  }
  OPSIN_CHECK(Error, PyCapsule_IsValid(capsule.ptr(), "dltensor"),
              "from_dlpack: expected a fresh capsule named \"dltensor\" (a capsule can be used only once)");
  auto* managed = static_cast<DLManagedTensor*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor"));
  const DLTensor& from = managed->dl_tensor;
  OPSIN_CHECK(Error, from.device.device_type == kDLCPU,
              "from_dlpack: expected CPU memory, got DLPack device type ", from.device.device_type);
  OPSIN_CHECK(ValueError, from.ndim >= 0, "from_dlpack: expected a rank of at least 0, got ", from.ndim);
  const DType dtype = from_dlpack_type(from.dtype);
  const Dims sizes(IntSpan(from.shape, static_cast<size_t>(from.ndim)));
  const Dims strides = from.strides ? Dims(IntSpan(from.strides, sizes.size())) : contiguous_strides(sizes);
  for (const int64_t stride : strides) {
    OPSIN_CHECK(ValueError, stride >= 0, "from_dlpack: expected non-negative strides, got ", str(strides));
  }
  const Tensor tensor = from_blob(static_cast<char*>(from.data) + from.byte_offset, sizes, strides, dtype,
                                  opsin::kCPU, drop_import, managed);
  PyCapsule_SetName(capsule.ptr(), "used_dltensor");
  return tensor;
}

}  // namespace

void bind_dlpack(py::module_& module) {
  module.def(
      "from_dlpack", [](const py::object& object) { return to_python(from_dlpack(object)); },
      py::arg("ext_tensor"), "A tensor that shares the memory of an object with `__dlpack__`.");
  const py::handle type(reinterpret_cast<PyObject*>(tensor_type));
  type.attr("__dlpack__") = py::cpp_function(
      [](const Tensor& self, const py::object& stream, const py::kwargs&) { return to_dlpack(self, stream); },
      py::name("__dlpack__"), py::is_method(type), py::kw_only(), py::arg("stream") = py::none(),
      "A DLPack capsule on the same memory.");
  type.attr("__dlpack_device__") = py::cpp_function([](const Tensor&) { return py::make_tuple(kDLCPU, 0); },
                                                    py::name("__dlpack_device__"), py::is_method(type));
}

}  // namespace opsin::python

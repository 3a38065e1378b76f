// DLPack, both ways, without copies. Structures by the standard: https://dmlc.github.io/dlpack/latest/
#include "python_tensor.h"

#include <opsin/cuda.h>
#include <opsin/ops/copy.h>

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

enum : int32_t { kDLCPU = 1, kDLCUDA = 2, kDLCUDAHost = 3 };
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

DLDevice to_dlpack_device(Device device) {
  if (device.is_cpu()) return {kDLCPU, 0};
  return {kDLCUDA, device.index};
}

/// What an exported tensor owns until the consumer is done with it.
struct Export {
  explicit Export(Tensor tensor_)
      : tensor(std::move(tensor_)), sizes(tensor.sizes()), strides(tensor.strides()) {
    managed.dl_tensor = {tensor.impl()->mutable_data(),
                         to_dlpack_device(tensor.device()),
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

/// Numbers that the standard gives to the default streams of CUDA.
constexpr int64_t kNoSync = -1, kLegacyStream = 1, kPerThreadStream = 2;

/// Makes the consumer's stream wait for what this thread's stream does to the tensor.
void hand_over(Device device, const py::object& stream) {
  const int64_t number = stream.is_none() ? kLegacyStream : stream.cast<int64_t>();
  if (number == kNoSync) return;
  OPSIN_CHECK(
      ValueError, number > 0 && number != kPerThreadStream,
      "__dlpack__: stream must be None, -1, 1 (the legacy default stream) or the address of a stream, got ",
      number);
  void* const handle = number == kLegacyStream ? nullptr : reinterpret_cast<void*>(number);
  const cuda::Stream consumer = cuda::Stream::external(handle, device.index);
  const cuda::Stream current = cuda::Stream::current(device.index);
  if (!(consumer == current)) consumer.wait_stream(current);
}

py::object to_dlpack(const Tensor& self, const py::object& stream, const py::object& copy_,
                     const py::object& dl_device) {
  OPSIN_CHECK(Error, !self.requires_grad(),
              "__dlpack__: Can't export tensors that require gradient, use tensor.detach()");
  OPSIN_CHECK(ValueError, stream.is_none() || self.device().is_cuda(),
              "__dlpack__: stream must be None for tensors on the CPU");
  Tensor tensor = self.detach();
  if (!dl_device.is_none()) {
    const auto [type, index] = dl_device.cast<std::pair<int32_t, int32_t>>();
    const DLDevice own = to_dlpack_device(tensor.device());
    if (type != own.device_type || index != own.device_id) {
      PyErr_Format(PyExc_BufferError,
                   "__dlpack__: the tensor is on %s, got dl_device (%d, %d) (move it first)",
                   tensor.device().str().c_str(), type, index);
      throw py::error_already_set();
    }
  }
  if (!copy_.is_none() && copy_.cast<bool>()) tensor = clone(tensor);
  auto exported = std::make_unique<Export>(tensor);
  if (tensor.device().is_cuda()) hand_over(tensor.device(), stream);
  PyObject* capsule = PyCapsule_New(&exported->managed, "dltensor", [](PyObject* owner) {
    // A consumer renames the capsule and takes over the tensor.
    if (!PyCapsule_IsValid(owner, "dltensor")) return;
    auto* managed = static_cast<DLManagedTensor*>(PyCapsule_GetPointer(owner, "dltensor"));
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
    const py::object device =
        py::hasattr(source, "__dlpack_device__") ? source.attr("__dlpack_device__")() : py::none();
    if (!device.is_none() && device.cast<py::tuple>()[0].cast<int32_t>() == kDLCUDA) {
      const auto index = device.cast<py::tuple>()[1].cast<int>();
      const auto handle = reinterpret_cast<int64_t>(cuda::Stream::current(index).handle());
      capsule = source.attr("__dlpack__")(py::arg("stream") = handle == 0 ? kLegacyStream : handle);
    } else {
      capsule = source.attr("__dlpack__")();
    }
  }
  OPSIN_CHECK(Error, PyCapsule_IsValid(capsule.ptr(), "dltensor"),
              "from_dlpack: expected a fresh capsule named \"dltensor\" (a capsule can be used only once)");
  auto* managed = static_cast<DLManagedTensor*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor"));
  const DLTensor& from = managed->dl_tensor;
  const int32_t type = from.device.device_type;
  OPSIN_CHECK(Error, type == kDLCPU || type == kDLCUDA || type == kDLCUDAHost,
              "from_dlpack: expected memory of the CPU or of a CUDA device, got DLPack device type ", type);
  const Device device =
      type == kDLCUDA ? Device{DeviceType::kCUDA, static_cast<int8_t>(from.device.device_id)} : opsin::kCPU;
  // Raises where the device does not exist here.
  if (device.is_cuda()) (void)cuda::Stream::current(device.index);
  OPSIN_CHECK(ValueError, from.ndim >= 0, "from_dlpack: expected a rank of at least 0, got ", from.ndim);
  const DType dtype = from_dlpack_type(from.dtype);
  const Dims sizes(IntSpan(from.shape, static_cast<size_t>(from.ndim)));
  const Dims strides = from.strides ? Dims(IntSpan(from.strides, sizes.size())) : contiguous_strides(sizes);
  for (const int64_t stride : strides) {
    OPSIN_CHECK(ValueError, stride >= 0, "from_dlpack: expected non-negative strides, got ", str(strides));
  }
  const Tensor tensor = from_blob(static_cast<char*>(from.data) + from.byte_offset, sizes, strides, dtype,
                                  device, drop_import, managed);
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
      [](const Tensor& self, const py::object& stream, const py::object&, const py::object& dl_device,
         const py::object& copy) { return to_dlpack(self, stream, copy, dl_device); },
      py::name("__dlpack__"), py::is_method(type), py::kw_only(), py::arg("stream") = py::none(),
      py::arg("max_version") = py::none(), py::arg("dl_device") = py::none(), py::arg("copy") = py::none(),
      "A DLPack capsule on the same memory, which the consumer may use on `stream`.");
  type.attr("__dlpack_device__") = py::cpp_function(
      [](const Tensor& self) {
        const DLDevice device = to_dlpack_device(self.device());
        return py::make_tuple(device.device_type, device.device_id);
      },
      py::name("__dlpack_device__"), py::is_method(type));
}

}  // namespace opsin::python

// Numbers, nested sequences and NumPy arrays to tensors and back.
#include "python_tensor.h"

#include <cstring>

#include <pybind11/numpy.h>

#include <opsin/ops.h>

#include "core/dispatch.h"
#include "core/elementwise.h"
#include "core/promotion.h"

namespace opsin::python {

namespace {

/// Whether `object` is a NumPy scalar such as np.float32(1); looks at the name so that NumPy need not be
/// imported.
bool is_numpy_scalar(PyObject* object) {
  for (PyTypeObject* type = Py_TYPE(object); type; type = type->tp_base) {
    if (std::strcmp(type->tp_name, "numpy.generic") == 0) return true;
  }
  return false;
}

std::optional<DType> dtype_of_array(const py::dtype& dtype) {
  const char kind = dtype.kind();
  const auto size = dtype.itemsize();
  if (kind == 'b') return opsin::kBool;
  if (kind == 'u' && size == 1) return kUInt8;
  if (kind == 'i') return size == 1 ? kInt8 : size == 2 ? kInt16 : size == 4 ? kInt32 : kInt64;
  if (kind == 'f' && size <= 8) return size == 2 ? kFloat16 : size == 4 ? kFloat32 : kFloat64;
  if (kind == 'c' && size <= 16) return size == 8 ? kComplex64 : kComplex128;
  return std::nullopt;
}

const char* array_dtype_name(DType dtype) {
  OPSIN_CHECK(TypeError, dtype != kBFloat16,
              "numpy: Got unsupported ScalarType BFloat16 (NumPy has no bfloat16: convert with .float())");
  return name(dtype);
}

void drop_reference(void* context, void*, size_t) {
  if (!Py_IsInitialized()) return;
  const py::gil_scoped_acquire gil;
  Py_DECREF(static_cast<PyObject*>(context));
}

Tensor from_numpy(const py::object& object) {
  OPSIN_CHECK(TypeError, py::isinstance<py::array>(object), "from_numpy: expected np.ndarray (got ",
              Py_TYPE(object.ptr())->tp_name, ")");
  const auto array = py::reinterpret_borrow<py::array>(object);
  const auto dtype = dtype_of_array(array.dtype());
  OPSIN_CHECK(TypeError, dtype && array.dtype().attr("isnative").cast<bool>(),
              "from_numpy: can't convert np.ndarray of type ", py::str(array.dtype()).cast<std::string>(),
              ". The only supported types are: float64, float32, float16, complex64, complex128, int64, "
              "int32, int16, "
              "int8, uint8, and bool (in native byte order).");
  Dims sizes, strides;
  for (py::ssize_t i = 0; i < array.ndim(); ++i) {
    const auto item = static_cast<py::ssize_t>(item_size(*dtype));
    OPSIN_CHECK(
        ValueError, array.strides(i) >= 0,
        "from_numpy: At least one stride in the given numpy array is negative, and tensors with negative "
        "strides "
        "are not currently supported. (You can probably work around this by making a copy of your array with "
        "array.copy().)");
    OPSIN_CHECK(ValueError, array.strides(i) % item == 0 || array.shape(i) <= 1,
                "from_numpy: strides must be multiples of the element size");
    sizes.push_back(array.shape(i));
    strides.push_back(array.strides(i) / item);
  }
  if (!array.writeable() && PyErr_WarnEx(PyExc_UserWarning,
                                         "from_numpy: the given NumPy array is not writable, and tensors "
                                         "have no such protection: writing to this "
                                         "tensor would change it (copy the array to be safe)",
                                         1) < 0) {
    throw py::error_already_set();
  }
  Py_INCREF(array.ptr());
  return from_blob(const_cast<void*>(array.data()), sizes, strides, *dtype, opsin::kCPU, drop_reference,
                   array.ptr());
}

/// The values on the CPU, outside the graph.
Tensor fetch(const Tensor& tensor) {
  const GilRelease release(tensor.device().is_cpu() ? 0 : INT64_MAX);
  return to(tensor.detach(), opsin::kCPU);
}

py::object to_numpy(const py::object& self, bool force) {
  Tensor tensor = unwrap(self.ptr());
  OPSIN_CHECK(TypeError, force || tensor.device().is_cpu(), "numpy: can't convert ", tensor.device().str(),
              " device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory first.");
  OPSIN_CHECK(Error, force || !tensor.requires_grad(),
              "Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead.");
  const py::dtype dtype(array_dtype_name(tensor.dtype()));
  tensor = fetch(tensor);
  char* data = tensor.impl()->mutable_data();
  tensor.impl()->storage->escaped = true;
  std::vector<py::ssize_t> shape, strides;
  for (int64_t i = 0; i < tensor.dim(); ++i) {
    shape.push_back(tensor.size(i));
    strides.push_back(tensor.stride(i) * static_cast<py::ssize_t>(item_size(tensor.dtype())));
  }
  return py::array(dtype, std::move(shape), std::move(strides), data, to_python(tensor));
}

// --- nested sequences ---

bool is_sequence(PyObject* object) { return PyList_Check(object) || PyTuple_Check(object); }

/// Sizes by the first item of every level; the fill checks the rest.
void find_sizes(PyObject* data, Dims& sizes) {
  while (is_sequence(data)) {
    const Py_ssize_t size = PySequence_Fast_GET_SIZE(data);
    sizes.push_back(size);
    if (size == 0) return;
    data = PySequence_Fast_GET_ITEM(data, 0);
  }
  if (is_tensor(data)) {
    for (const int64_t size : unwrap(data).sizes()) sizes.push_back(size);
  } else if (py::isinstance<py::array>(data)) {
    const auto array = py::reinterpret_borrow<py::array>(data);
    for (py::ssize_t i = 0; i < array.ndim(); ++i) sizes.push_back(array.shape(i));
  }
}

void find_dtype(PyObject* data, std::optional<DType>& dtype) {
  if (is_sequence(data)) {
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(data); ++i)
      find_dtype(PySequence_Fast_GET_ITEM(data, i), dtype);
    return;
  }
  DType own;
  Scalar number;
  if (is_tensor(data)) {
    own = unwrap(data).dtype();
  } else if (py::isinstance<py::array>(data)) {
    own = from_numpy(py::reinterpret_borrow<py::object>(data)).dtype();
  } else {
    OPSIN_CHECK(TypeError, read_number(data, number),
                "tensor: expected numbers, sequences of numbers or an array, got ", Py_TYPE(data)->tp_name);
    own = number.dtype();
    if (is_numpy_scalar(data) && !PyFloat_Check(data)) {
      own = dtype_of_array(py::reinterpret_borrow<py::object>(data).attr("dtype").cast<py::dtype>())
                .value_or(own);
    }
  }
  dtype = dtype ? promote_types(*dtype, own) : own;
}

void fill(PyObject* data, const Tensor& part) {
  if (is_sequence(data)) {
    const Py_ssize_t size = PySequence_Fast_GET_SIZE(data);
    OPSIN_CHECK(ValueError, part.dim() > 0 && part.sizes()[0] == size, "tensor: expected sequence of length ",
                part.dim() > 0 ? part.sizes()[0] : 0, " (got ", size, ")");
    if (part.dim() == 1) {
      char* to = part.impl()->mutable_data();
      const auto step = part.strides()[0] * static_cast<int64_t>(item_size(part.dtype()));
      for (Py_ssize_t i = 0; i < size; ++i, to += step) {
        PyObject* item = PySequence_Fast_GET_ITEM(data, i);
        Scalar number;
        if (is_tensor(item)) {
          number = value_of(unwrap(item));
        } else {
          OPSIN_CHECK(TypeError, read_number(item, number), "tensor: expected a number, got ",
                      Py_TYPE(item)->tp_name, " (sequences must be of equal depth)");
        }
        OPSIN_CHECK(ValueError,
                    !is_integral(part.dtype()) || !number.is_integral() || part.dtype() == opsin::kBool ||
                        in_range(number.to_int(), part.dtype()),
                    "tensor: value cannot be converted to type ", name(part.dtype()),
                    " without overflow, got ", number.to_int());
        store_scalar(number, part.dtype(), to);
      }
      return;
    }
    for (Py_ssize_t i = 0; i < size; ++i) fill(PySequence_Fast_GET_ITEM(data, i), select(part, 0, i));
    return;
  }
  Tensor source;
  if (is_tensor(data)) {
    source = unwrap(data).detach();
  } else if (py::isinstance<py::array>(data)) {
    source = from_numpy(py::reinterpret_borrow<py::object>(data));
  } else {
    Scalar number;
    OPSIN_CHECK(TypeError, read_number(data, number), "tensor: expected a number, got ",
                Py_TYPE(data)->tp_name);
    OPSIN_CHECK(ValueError,
                !is_integral(part.dtype()) || !number.is_integral() || part.dtype() == opsin::kBool ||
                    in_range(number.to_int(), part.dtype()),
                "tensor: value cannot be converted to type ", name(part.dtype()), " without overflow, got ",
                number.to_int());
    // Directly: a detour over the default dtype would round a float64.
    OPSIN_CHECK(ValueError, part.dim() == 0, "tensor: expected items of shape ", str(part.sizes()),
                ", got a number");
    store_scalar(number, part.dtype(), part.impl()->mutable_data());
    return;
  }
  OPSIN_CHECK(ValueError, source.dim() == 0 || source.sizes() == part.sizes(),
              "tensor: expected items of shape ", str(part.sizes()), ", got ", str(source.sizes()));
  copy_(part, source);
}

py::object make_tensor(const py::object& data, const py::object& dtype, const py::object& device,
                       bool requires_grad) {
  DType wanted;
  if (!dtype.is_none() && !read_dtype(dtype.ptr(), wanted))
    throw TypeError("tensor: dtype must be an opsin.dtype");
  // A tensor stays where it is, numbers go to the CPU.
  const Device place = device.is_none() && is_tensor(data.ptr()) ? unwrap(data.ptr()).device()
                                                                 : device_or_cpu("tensor", device);
  Tensor tensor;
  if (is_tensor(data.ptr()) && !(place.is_cpu() && unwrap(data.ptr()).device().is_cpu())) {
    const Tensor source = unwrap(data.ptr()).detach();
    const Tensor moved = to(to(source, place), dtype.is_none() ? source.dtype() : wanted);
    tensor = moved.impl()->storage.get() == source.impl()->storage.get() ? clone(moved) : moved;
  } else {
    tensor = to(tensor_from_data(data.ptr(), dtype.is_none() ? std::nullopt : std::optional(wanted)), place);
  }
  return to_python(tensor.set_requires_grad(requires_grad));
}

py::object as_tensor(const py::object& data, const py::object& dtype, const py::object& device) {
  if (is_tensor(data.ptr()) || py::isinstance<py::array>(data)) {
    const Tensor same = is_tensor(data.ptr()) ? unwrap(data.ptr()) : from_numpy(data);
    DType wanted = same.dtype();
    if (!dtype.is_none() && !read_dtype(dtype.ptr(), wanted))
      throw TypeError("as_tensor: dtype must be an opsin.dtype");
    const Device place = device.is_none() ? same.device() : device_or_cpu("as_tensor", device);
    return to_python(to(to(same, place), wanted));
  }
  return make_tensor(data, dtype, device, false);
}

/// `tensor` is on the CPU.
py::object to_list(const Tensor& tensor) {
  if (tensor.dim() == 0) return py::reinterpret_steal<py::object>(wrap_scalar(tensor.scalar()));
  const int64_t size = tensor.sizes()[0];
  py::list list(static_cast<size_t>(size));
  for (int64_t i = 0; i < size; ++i) list[static_cast<size_t>(i)] = to_list(select(tensor, 0, i));
  return list;
}

int get_buffer(PyObject* self, Py_buffer* buffer, int flags) {
  return guarded(-1, [&] {
    const py::object array = to_numpy(py::reinterpret_borrow<py::object>(self), false);
    return PyObject_GetBuffer(array.ptr(), buffer, flags);
  });
}

}  // namespace

bool in_range(int64_t value, DType dtype) {
  switch (dtype) {
    case kUInt8:
      return value >= -128 && value <= 255;  // As PyTorch: negative numbers wrap.
    case kInt8:
      return value >= -128 && value <= 127;
    case kInt16:
      return value >= -32768 && value <= 32767;
    case kInt32:
      return value >= INT32_MIN && value <= INT32_MAX;
    default:
      return true;
  }
}

bool read_number(PyObject* object, Scalar& value) {
  if (PyFloat_Check(object)) {
    value = PyFloat_AS_DOUBLE(object);
  } else if (PyBool_Check(object)) {
    value = object == Py_True;
  } else if (PyLong_Check(object)) {
    int overflow = 0;
    const long long number = PyLong_AsLongLongAndOverflow(object, &overflow);
    if (overflow) {
      PyErr_SetString(PyExc_OverflowError, "tensor: int too large to convert, expected a 64-bit number");
      throw py::error_already_set();
    }
    value = static_cast<int64_t>(number);
  } else if (PyComplex_Check(object)) {
    value = std::complex<double>(PyComplex_RealAsDouble(object), PyComplex_ImagAsDouble(object));
  } else if (is_numpy_scalar(object)) {
    const py::object item = py::reinterpret_borrow<py::object>(object).attr("item")();
    return !is_numpy_scalar(item.ptr()) && read_number(item.ptr(), value);
  } else {
    return false;
  }
  return true;
}

Tensor wrap_python_number(PyObject* object) {
  Scalar value;
  return read_number(object, value) ? wrap_number(value) : Tensor();
}

Tensor tensor_from_data(PyObject* data, std::optional<DType> dtype) {
  const py::object holder = py::reinterpret_borrow<py::object>(data);
  if (!is_tensor(data) && !is_sequence(data) && !py::isinstance<py::array>(holder)) {
    if (py::hasattr(holder, "__array__") && !is_numpy_scalar(data)) {
      const py::object array = holder.attr("__array__")();
      return tensor_from_data(array.ptr(), dtype);
    }
    if (PySequence_Check(data) && !PyUnicode_Check(data) && !PyBytes_Check(data)) {
      const py::list list(holder);
      return tensor_from_data(list.ptr(), dtype);
    }
  }
  Dims sizes;
  find_sizes(data, sizes);
  if (!dtype) find_dtype(data, dtype);
  const Tensor tensor = empty(sizes, dtype.value_or(default_dtype()));
  fill(data, tensor);
  return tensor;
}

void bind_conversion(py::module_& module) {
  module.def("tensor", &make_tensor, py::arg("data"), py::kw_only(), py::arg("dtype") = py::none(),
             py::arg("device") = py::none(), py::arg("requires_grad") = false,
             "A new tensor from numbers, nested sequences or an array; always a copy. The dtype is inferred "
             "if not given: "
             "bool, int64 or the default float dtype.");
  module.def("as_tensor", &as_tensor, py::arg("data"), py::arg("dtype") = py::none(),
             py::arg("device") = py::none(),
             "As tensor(), sharing memory with tensors and NumPy arrays where the dtype allows it.");
  module.def(
      "from_numpy", [](const py::object& array) { return to_python(from_numpy(array)); }, py::arg("ndarray"),
      "A tensor that shares the memory of a NumPy array.");

  const py::handle type(reinterpret_cast<PyObject*>(tensor_type));
  const auto method = [&](const char* name, auto&& function, const auto&... extra) {
    type.attr(name) = py::cpp_function(std::forward<decltype(function)>(function), py::name(name),
                                       py::is_method(type), extra...);
  };
  method("numpy", &to_numpy, py::kw_only(), py::arg("force") = false,
         "The tensor as a NumPy array on the same memory.");
  method(
      "tolist", [](const Tensor& self) { return to_list(fetch(self)); }, "Nested lists of Python numbers.");
  method(
      "__array__",
      [](const py::object& self, const py::object& dtype, const py::object&) {
        const py::object array = to_numpy(self, false);
        return dtype.is_none() ? array : array.attr("astype")(dtype, py::arg("copy") = false);
      },
      py::arg("dtype") = py::none(), py::kw_only(), py::arg("copy") = py::none(),
      "The tensor as a NumPy array.");
  tensor_type->tp_as_buffer->bf_getbuffer = get_buffer;
}

}  // namespace opsin::python

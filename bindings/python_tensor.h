// The Python type of tensors, and how tensors cross the border.
#pragma once

#include <pybind11/pybind11.h>

#include <opsin/autograd.h>
#include <opsin/tensor.h>

namespace opsin::python {

namespace py = pybind11;

struct TensorObject {
  PyObject_HEAD Tensor tensor;
  PyObject* attributes;
  PyObject* weak_references;
};

/// `opsin.Tensor`. Subclasses made in Python keep their class for the tensor's life.
extern PyTypeObject* tensor_type;

inline bool is_tensor(PyObject* object) {
  return Py_TYPE(object) == tensor_type || PyType_IsSubtype(Py_TYPE(object), tensor_type);
}
inline const Tensor& unwrap(PyObject* object) { return reinterpret_cast<TensorObject*>(object)->tensor; }

/// The Python object of a tensor, always the same one while the tensor lives; None for an undefined tensor.
PyObject* wrap(const Tensor& tensor);
inline py::object to_python(const Tensor& tensor) { return py::reinterpret_steal<py::object>(wrap(tensor)); }

/// Number to 0-d tensor; undefined if `object` is not a Python or NumPy number.
Tensor wrap_python_number(PyObject* object);
/// Whether `object` is a Python or NumPy number; then also its value.
bool read_number(PyObject* object, Scalar& value);

/// Sets the Python error that stands for the C++ exception being handled.
void translate_exception();

/// Runs `body`; a C++ exception becomes a Python error and `failed` is returned.
template <class R, class F>
R guarded(R failed, F&& body) {
  try {
    return body();
  } catch (...) {
    translate_exception();
    return failed;
  }
}
template <class F>
PyObject* guarded(F&& body) {
  return guarded(static_cast<PyObject*>(nullptr), std::forward<F>(body));
}

/// Lets other Python threads run while `elements` are worked on, if that is long enough (about 20 us) to pay.
class GilRelease {
 public:
  explicit GilRelease(int64_t elements) {
    if (elements >= 32768) state_ = PyEval_SaveThread();
  }
  ~GilRelease() {
    if (state_) PyEval_RestoreThread(state_);
  }
  GilRelease(const GilRelease&) = delete;
  GilRelease& operator=(const GilRelease&) = delete;

 private:
  PyThreadState* state_ = nullptr;
};

/// The value of a tensor of one element. Other Python threads run while a GPU is waited for.
inline Scalar value_of(const Tensor& tensor) {
  const GilRelease release(tensor.device().is_cpu() ? 0 : INT64_MAX);
  return tensor.scalar();
}

/// Reports to the garbage collector the Python hooks that only `tensor` keeps.
int visit_hooks(const Tensor& tensor, visitproc visit, void* arg);
/// Drops those hooks.
void drop_hooks(const Tensor& tensor);

// The parts of the module, one file each.
void bind_types(py::module_& module);
void bind_tensor(py::module_& module);
void bind_functions(py::module_& module);
void bind_autograd(py::module_& module);
void bind_conversion(py::module_& module);
void bind_dlpack(py::module_& module);
void bind_runtime(py::module_& module);
void bind_cuda(py::module_& module);
void bind_profiler(py::module_& module);
void bind_slots(py::module_& module);
void bind_nn_module(py::module_& module);

/// Sets `__all__`, which the package passes on and type checkers follow, to all names without an underscore.
void list_public_names(py::module_& module);
/// Adds the op functions and methods to `opsin.Tensor`; called before the type is ready to use.
void add_op_methods(PyObject* type);
/// `self[index]` and `self[index] = value`.
PyObject* get_item(PyObject* self, PyObject* index);
int set_item(PyObject* self, PyObject* index, PyObject* value);
/// A tensor from nested sequences, numbers or a NumPy array; always a copy.
Tensor tensor_from_data(PyObject* data, std::optional<DType> dtype);

/// Whether an integer fits a dtype.
bool in_range(int64_t value, DType dtype);

// Small types (types.cpp).
PyObject* wrap_dtype(DType dtype);
bool read_dtype(PyObject* object, DType& dtype);
PyObject* wrap_device(Device device);
/// A device, text or number of a GPU; "cuda" without a number is the current device.
bool read_device(PyObject* object, Device& device);
/// The same from an optional argument of `op`, whose default is the CPU.
Device device_or_cpu(const char* op, const py::object& object);
PyObject* wrap_size(IntSpan sizes);
PyObject* wrap_scalar(const Scalar& value);
bool read_memory_format(PyObject* object, std::string& name);
extern PyObject* shape_error;
extern PyObject* out_of_memory_error;

}  // namespace opsin::python

namespace pybind11::detail {
template <>
struct type_caster<opsin::Tensor> {
  PYBIND11_TYPE_CASTER(opsin::Tensor, const_name("Tensor"));
  bool load(handle source, bool) {
    if (source.is_none()) return true;
    if (!opsin::python::is_tensor(source.ptr())) return false;
    value = opsin::python::unwrap(source.ptr());
    return true;
  }
  static handle cast(const opsin::Tensor& tensor, return_value_policy, handle) {
    return opsin::python::wrap(tensor);
  }
};
template <>
struct type_caster<opsin::DType> {
  PYBIND11_TYPE_CASTER(opsin::DType, const_name("dtype"));
  bool load(handle source, bool) { return opsin::python::read_dtype(source.ptr(), value); }
  static handle cast(opsin::DType dtype, return_value_policy, handle) {
    return opsin::python::wrap_dtype(dtype);
  }
};
}  // namespace pybind11::detail

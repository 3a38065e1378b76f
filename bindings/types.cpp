// dtype, device, Size, memory formats and the errors.
#include "python_tensor.h"

#include <pybind11/stl.h>

#include <opsin/cuda.h>

namespace opsin::python {

PyObject* shape_error = nullptr;
PyObject* out_of_memory_error = nullptr;

namespace {

struct DTypeObject {
  PyObject_HEAD DType dtype;
};

PyTypeObject* dtype_type = nullptr;
PyTypeObject* size_type = nullptr;
PyObject* dtypes[kNumDTypes] = {};

struct MemoryFormat {
  std::string name;
};

DType dtype_of_object(PyObject* self) { return reinterpret_cast<DTypeObject*>(self)->dtype; }

PyObject* dtype_repr(PyObject* self) { return PyUnicode_FromFormat("opsin.%s", name(dtype_of_object(self))); }
// The name of a module attribute: unpickling gives the same object.
PyObject* dtype_reduce(PyObject* self, PyObject*) {
  return PyUnicode_FromString(name(dtype_of_object(self)));
}

PyMethodDef dtype_methods[] = {{"__reduce__", dtype_reduce, METH_NOARGS, nullptr},
                               {nullptr, nullptr, 0, nullptr}};
PyGetSetDef dtype_attributes[] = {
    {"is_floating_point",
     [](PyObject* self, void*) { return PyBool_FromLong(is_floating_point(dtype_of_object(self))); }, nullptr,
     "Whether values are real floating-point numbers.", nullptr},
    {"is_complex", [](PyObject* self, void*) { return PyBool_FromLong(is_complex(dtype_of_object(self))); },
     nullptr, "Whether values are complex.", nullptr},
    {"is_signed",
     [](PyObject* self, void*) {
       const DType dtype = dtype_of_object(self);
       return PyBool_FromLong(dtype != opsin::kBool && dtype != kUInt8);
     },
     nullptr, "Whether values can be negative.", nullptr},
    {"itemsize", [](PyObject* self, void*) { return PyLong_FromSize_t(item_size(dtype_of_object(self))); },
     nullptr, "Bytes of one element.", nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr}};

PyObject* size_numel(PyObject* self, PyObject*) {
  return guarded([&] {
    Dims sizes;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(self); ++i)
      sizes.push_back(PyLong_AsLongLong(PyTuple_GET_ITEM(self, i)));
    return PyLong_FromLongLong(count_elements(sizes));
  });
}
PyObject* size_repr(PyObject* self) {
  const py::list items(py::reinterpret_borrow<py::tuple>(self));
  return PyUnicode_FromFormat("opsin.Size(%R)", items.ptr());
}
PyMethodDef size_methods[] = {{"numel", size_numel, METH_NOARGS, "The number of elements."},
                              {nullptr, nullptr, 0, nullptr}};

PyTypeObject* make_type(PyType_Spec& spec, PyObject* base = nullptr) {
  const py::object bases = base ? py::object(py::make_tuple(py::handle(base))) : py::object();
  PyObject* type = PyType_FromSpecWithBases(&spec, bases.ptr());
  if (!type) throw py::error_already_set();
  return reinterpret_cast<PyTypeObject*>(type);
}

}  // namespace

PyObject* wrap_dtype(DType dtype) { return Py_NewRef(dtypes[static_cast<int>(dtype)]); }

bool read_dtype(PyObject* object, DType& dtype) {
  if (Py_TYPE(object) == dtype_type) {
    dtype = dtype_of_object(object);
  } else if (object == reinterpret_cast<PyObject*>(&PyFloat_Type)) {
    dtype = default_dtype();
  } else if (object == reinterpret_cast<PyObject*>(&PyLong_Type)) {
    dtype = kInt64;
  } else if (object == reinterpret_cast<PyObject*>(&PyBool_Type)) {
    dtype = opsin::kBool;
  } else {
    return false;
  }
  return true;
}

PyObject* wrap_device(Device device) { return py::cast(device).release().ptr(); }

namespace {

/// Stands for "the current one" in a device that was written as "cuda".
constexpr int8_t kCurrent = -1;

int8_t device_index(long index) {
  if (index == -1 && PyErr_Occurred()) throw py::error_already_set();
  OPSIN_CHECK(Error, index >= 0 && index <= 127, "device: invalid device ordinal ", index);
  return static_cast<int8_t>(index);
}

/// As the user wrote it.
bool read_written_device(PyObject* object, Device& device) {
  if (PyUnicode_Check(object)) {
    const auto text = py::cast<std::string>(object);
    device = text == "cuda" ? Device{DeviceType::kCUDA, kCurrent} : Device::parse(text);
  } else if (PyLong_Check(object) && !PyBool_Check(object)) {
    device = {DeviceType::kCUDA, device_index(PyLong_AsLong(object))};
  } else if (py::isinstance<Device>(object)) {
    device = py::cast<Device>(object);
  } else {
    return false;
  }
  return true;
}

Device make_device(const py::object& type, std::optional<int> index) {
  Device device;
  if (!read_written_device(type.ptr(), device)) throw TypeError("device: expected a str, int or device");
  if (!index) return device;
  OPSIN_CHECK(Error,
              PyUnicode_Check(type.ptr()) && py::cast<std::string>(type).find(':') == std::string::npos,
              "device: expected a type without an index when one is given, got '",
              py::str(type).cast<std::string>(), "'");
  const int8_t number = device_index(*index);
  OPSIN_CHECK(Error, device.is_cuda() || number == 0, "device: the CPU has index 0 only, got ", *index);
  device.index = number;
  return device;
}

py::object index_of(const Device& device) {
  return device.is_cpu() || device.index == kCurrent ? py::none() : py::object(py::int_(device.index));
}

std::string text_of(const Device& device) { return device.index == kCurrent ? "cuda" : device.str(); }

std::string repr_of(const Device& device) {
  const py::object index = index_of(device);
  const std::string type = device.is_cpu() ? "device(type='cpu'" : "device(type='cuda'";
  return type + (index.is_none() ? ")" : ", index=" + std::to_string(device.index) + ")");
}

}  // namespace

bool read_device(PyObject* object, Device& device) {
  if (!read_written_device(object, device)) return false;
  if (device.index == kCurrent) device.index = static_cast<int8_t>(cuda::current_device());
  return true;
}

Device device_or_cpu(const char* op, const py::object& object) {
  Device device;
  OPSIN_CHECK(TypeError, object.is_none() || read_device(object.ptr(), device), op,
              ": device must be a device, a str or an int, got ", Py_TYPE(object.ptr())->tp_name);
  return device;
}

PyObject* wrap_size(IntSpan sizes) {
  PyObject* size = size_type->tp_alloc(size_type, static_cast<Py_ssize_t>(sizes.size()));
  if (!size) return nullptr;
  for (size_t i = 0; i < sizes.size(); ++i) {
    PyTuple_SET_ITEM(size, static_cast<Py_ssize_t>(i), PyLong_FromLongLong(sizes[i]));
  }
  return size;
}

PyObject* wrap_scalar(const Scalar& value) {
  switch (value.kind()) {
    case Scalar::Kind::kBoolean:
      return PyBool_FromLong(value.to_bool());
    case Scalar::Kind::kInteger:
      return PyLong_FromLongLong(value.to_int());
    case Scalar::Kind::kReal:
      return PyFloat_FromDouble(value.to_double());
    default:
      return PyComplex_FromDoubles(value.to_complex().real(), value.to_complex().imag());
  }
}

bool read_memory_format(PyObject* object, std::string& format) {
  if (!py::isinstance<MemoryFormat>(object)) return false;
  format = py::cast<const MemoryFormat&>(object).name;
  return true;
}

void translate_exception() {
  try {
    throw;
  } catch (py::error_already_set& error) {
    error.restore();
  } catch (const ShapeError& error) {
    PyErr_SetString(shape_error, error.what());
  } catch (const ValueError& error) {
    PyErr_SetString(PyExc_ValueError, error.what());
  } catch (const TypeError& error) {
    PyErr_SetString(PyExc_TypeError, error.what());
  } catch (const IndexError& error) {
    PyErr_SetString(PyExc_IndexError, error.what());
  } catch (const OutOfMemoryError& error) {
    PyErr_SetString(out_of_memory_error, error.what());
  } catch (const FileError& error) {
    PyErr_SetString(PyExc_OSError, error.what());
  } catch (const std::bad_alloc& error) {
    PyErr_SetString(PyExc_MemoryError, error.what());
  } catch (const py::builtin_exception& error) {
    error.set_error();
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
}

namespace {

int64_t read_size(const py::handle& size) {
  if (!PyLong_Check(size.ptr())) {
    throw TypeError(std::string("broadcast_shapes: expected ints and tuples of ints, got ") +
                    Py_TYPE(size.ptr())->tp_name);
  }
  return py::cast<int64_t>(size);
}

Dims read_shape(const py::handle& shape) {
  Dims sizes;
  if (PyTuple_Check(shape.ptr()) || PyList_Check(shape.ptr())) {
    for (const py::handle size : shape) sizes.push_back(read_size(size));
  } else {
    sizes.push_back(read_size(shape));
  }
  (void)count_elements(sizes, "broadcast_shapes");
  return sizes;
}

py::object broadcast_all(const py::args& shapes) {
  Dims result;
  for (const py::handle shape : shapes) result = broadcast_shapes(result, read_shape(shape));
  return py::reinterpret_steal<py::object>(wrap_size(result));
}

}  // namespace

void bind_types(py::module_& module) {
  const py::tuple bases = py::make_tuple(py::handle(PyExc_RuntimeError), py::handle(PyExc_ValueError));
  shape_error = PyErr_NewExceptionWithDoc(
      "opsin.ShapeError", "Sizes that cannot work together: both a RuntimeError and a ValueError.",
      bases.ptr(), nullptr);
  module.attr("ShapeError") = py::handle(shape_error);
  const py::tuple memory_bases =
      py::make_tuple(py::handle(PyExc_MemoryError), py::handle(PyExc_RuntimeError));
  out_of_memory_error = PyErr_NewExceptionWithDoc(
      "opsin.OutOfMemoryError", "No memory left on a device: both a MemoryError and a RuntimeError.",
      memory_bases.ptr(), nullptr);
  module.attr("OutOfMemoryError") = py::handle(out_of_memory_error);
  py::register_exception_translator([](std::exception_ptr error) {
    try {
      if (error) std::rethrow_exception(error);
    } catch (const Error&) {
      translate_exception();
    }
  });

  PyType_Slot dtype_slots[] = {{Py_tp_repr, reinterpret_cast<void*>(dtype_repr)},
                               {Py_tp_methods, dtype_methods},
                               {Py_tp_getset, dtype_attributes},
                               {Py_tp_doc, const_cast<char*>("The element type of a tensor.")},
                               {0, nullptr}};
  PyType_Spec dtype_spec = {"opsin.dtype", sizeof(DTypeObject), 0,
                            Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, dtype_slots};
  dtype_type = make_type(dtype_spec);
  module.attr("dtype") = py::handle(reinterpret_cast<PyObject*>(dtype_type));
  for (int i = 0; i < kNumDTypes; ++i) {
    dtypes[i] = dtype_type->tp_alloc(dtype_type, 0);
    reinterpret_cast<DTypeObject*>(dtypes[i])->dtype = static_cast<DType>(i);
    module.attr(name(static_cast<DType>(i))) = py::handle(dtypes[i]);
  }
  const std::pair<const char*, DType> aliases[] = {
      {"half", kFloat16}, {"float", kFloat32}, {"double", kFloat64},   {"short", kInt16},
      {"int", kInt32},    {"long", kInt64},    {"cfloat", kComplex64}, {"cdouble", kComplex128}};
  for (const auto& [alias, dtype] : aliases) module.attr(alias) = py::handle(dtypes[static_cast<int>(dtype)]);

  PyType_Slot size_slots[] = {{Py_tp_repr, reinterpret_cast<void*>(size_repr)},
                              {Py_tp_methods, size_methods},
                              {Py_tp_doc, const_cast<char*>("The sizes of a tensor: a tuple with numel().")},
                              {0, nullptr}};
  PyType_Spec size_spec = {"opsin.Size", 0, 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, size_slots};
  size_type = make_type(size_spec, reinterpret_cast<PyObject*>(&PyTuple_Type));
  module.attr("Size") = py::handle(reinterpret_cast<PyObject*>(size_type));

  py::class_<Device>(module, "device",
                     "Where the memory of a tensor lives: device('cpu'), device('cuda', 1).")
      .def(py::init(&make_device), py::arg("type"), py::arg("index") = py::none())
      .def_property_readonly("type", [](const Device& d) { return d.is_cpu() ? "cpu" : "cuda"; })
      .def_property_readonly("index", &index_of)
      .def("__eq__",
           [](const Device& a, const py::object& b) {
             return py::isinstance<Device>(b) && a == py::cast<Device>(b);
           })
      .def("__hash__", [](const Device& d) { return static_cast<int>(d.type) * 128 + d.index; })
      .def("__str__", &text_of)
      .def("__repr__", &repr_of)
      .def("__reduce__", [](const py::object& self) {
        return py::make_tuple(py::type::of(self), py::make_tuple(py::str(self)));
      });

  py::class_<MemoryFormat>(module, "memory_format", "A hint that the engine accepts and may ignore.")
      .def("__repr__", [](const MemoryFormat& format) { return "opsin." + format.name; })
      .def("__reduce__", [](const MemoryFormat& format) { return format.name; });
  for (const char* format : {"contiguous_format", "channels_last", "channels_last_3d", "preserve_format"}) {
    module.attr(format) = MemoryFormat{format};
  }
  module.def(
      "broadcast_shapes", &broadcast_all,
      "broadcast_shapes(*shapes) -> Size: the common shape of tensors of these shapes, each a tuple of "
      "ints or an int.");
}

}  // namespace opsin::python

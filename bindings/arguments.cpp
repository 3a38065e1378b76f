#include "arguments.h"

#include <algorithm>
#include <map>

#include <opsin/random.h>

namespace opsin::python {

namespace {

constexpr size_t kMaxArguments = 24;

bool read_int(PyObject* object, int64_t& value) {
  if (PyLong_CheckExact(object)) {
    value = PyLong_AsLongLong(object);
  } else if (PyBool_Check(object) || PyFloat_Check(object) || !PyIndex_Check(object)) {
    return false;
  } else {
    const py::object index = py::reinterpret_steal<py::object>(PyNumber_Index(object));
    if (!index) {
      PyErr_Clear();
      return false;
    }
    value = PyLong_AsLongLong(index.ptr());
  }
  if (value == -1 && PyErr_Occurred()) throw py::error_already_set();
  return true;
}

bool read_int_list(PyObject* object, const Argument& argument, Dims& values) {
  if (PyTuple_Check(object) || PyList_Check(object)) {
    const Py_ssize_t size = PySequence_Fast_GET_SIZE(object);
    for (Py_ssize_t i = 0; i < size; ++i) {
      PyObject* item = PySequence_Fast_GET_ITEM(object, i);
      int64_t value = kNoneEntry;
      if (!(argument.none_entries && item == Py_None) && !read_int(item, value)) return false;
      values.push_back(value);
    }
    return true;
  }
  int64_t value = 0;
  if (argument.list_size == 0 && !argument.variadic) return false;
  if (!read_int(object, value)) return false;
  values = Dims(static_cast<size_t>(std::max(argument.list_size, 1)), value);
  return true;
}

bool read_tensor_list(PyObject* object, TensorList& tensors) {
  if (!PyTuple_Check(object) && !PyList_Check(object)) return false;
  const Py_ssize_t size = PySequence_Fast_GET_SIZE(object);
  tensors.reserve(static_cast<size_t>(size));
  for (Py_ssize_t i = 0; i < size; ++i) {
    PyObject* item = PySequence_Fast_GET_ITEM(object, i);
    if (!is_tensor(item)) return false;
    tensors.push_back(unwrap(item));
  }
  return true;
}

/// Stores `object` in `value` if the argument can take it.
bool read_value(PyObject* object, const Argument& argument, Value& value) {
  if (object == Py_None) return argument.optional;
  switch (argument.type) {
    case ArgType::kOperand:
    case ArgType::kTensor:
      if (is_tensor(object)) {
        value = unwrap(object);
        return true;
      }
      if (argument.type == ArgType::kTensor) return false;
      if (Tensor number = wrap_python_number(object); number.defined()) {
        value = std::move(number);
        return true;
      }
      return false;
    case ArgType::kTensorList:
      return read_tensor_list(object, value.emplace<TensorList>());
    case ArgType::kInt:
      return read_int(object, value.emplace<int64_t>());
    case ArgType::kIntList:
      return read_int_list(object, argument, value.emplace<Dims>());
    case ArgType::kFloat: {
      Scalar number;
      if (!read_number(object, number) || number.is_complex()) return false;
      value = number.to_double();
      return true;
    }
    case ArgType::kBoolean:
      if (!PyBool_Check(object)) {
        Scalar number;
        if (PyLong_Check(object) || !read_number(object, number) || !number.is_bool()) return false;
        value = number.to_bool();
        return true;
      }
      value = object == Py_True;
      return true;
    case ArgType::kNumber: {
      Scalar number;
      if (!read_number(object, number)) {
        // A 0-d tensor stands for its value, as in PyTorch, unless that would cut it out of the graph.
        if (!is_tensor(object) || unwrap(object).dim() != 0 || unwrap(object).requires_grad()) return false;
        number = value_of(unwrap(object));
      }
      value = number;
      return true;
    }
    case ArgType::kString:
      if (!PyUnicode_Check(object)) return false;
      value = py::cast<std::string>(object);
      return true;
    case ArgType::kDType:
      return read_dtype(object, value.emplace<DType>());
    case ArgType::kDevice:
      return read_device(object, value.emplace<Device>());
    case ArgType::kGenerator:
      if (!py::isinstance<Generator>(object)) return false;
      value = py::cast<Generator*>(object);
      return true;
    case ArgType::kMemoryFormat:
      return read_memory_format(object, value.emplace<std::string>());
  }
  return false;
}

std::string type_name(PyObject* object) { return object == Py_None ? "NoneType" : Py_TYPE(object)->tp_name; }

/// Fills `values`; on failure writes why to `problem` if that is wanted.
bool read_arguments(const Schema& schema, PyObject* const* args, Py_ssize_t count, PyObject* keyword_names,
                    std::span<Value> values, std::string* problem) {
  const auto fail = [&](const auto&... parts) {
    if (problem) *problem = detail::concat(schema.name, "(): ", parts...);
    return false;
  };
  const size_t total = schema.arguments.size();
  uint32_t given = 0;
  size_t next = 0;
  Py_ssize_t position = 0;
  while (position < count) {
    if (next >= total || schema.arguments[next].keyword_only) {
      return fail("takes ",
                  std::count_if(schema.arguments.begin(), schema.arguments.end(),
                                [](const Argument& a) { return !a.keyword_only; }),
                  " positional arguments but ", count, " were given");
    }
    const Argument& argument = schema.arguments[next];
    const bool separate =
        argument.variadic && !PyTuple_Check(args[position]) && !PyList_Check(args[position]);
    if (separate && argument.type == ArgType::kTensorList) {
      TensorList& list = values[next].emplace<TensorList>();
      for (; position < count; ++position) {
        if (!is_tensor(args[position])) {
          return fail("argument '", argument.name, "' must be tuple of Tensors, not ",
                      type_name(args[position]));
        }
        list.push_back(unwrap(args[position]));
      }
    } else if (separate) {
      Dims& list = values[next].emplace<Dims>();
      for (; position < count; ++position) {
        int64_t value = 0;
        if (!read_int(args[position], value)) {
          return fail("argument '", argument.name, "' must be tuple of ints, not ",
                      type_name(args[position]));
        }
        list.push_back(value);
      }
    } else {
      if (!read_value(args[position], argument, values[next])) {
        return fail("argument '", argument.name, "' (position ", next + 1, ") must not be ",
                    type_name(args[position]));
      }
      ++position;
    }
    given |= 1u << next++;
  }
  const Py_ssize_t keywords = keyword_names ? PyTuple_GET_SIZE(keyword_names) : 0;
  for (Py_ssize_t k = 0; k < keywords; ++k) {
    PyObject* key = PyTuple_GET_ITEM(keyword_names, k);
    size_t i = 0;
    while (i < total && PyUnicode_CompareWithASCIIString(key, schema.arguments[i].name.c_str()) != 0) ++i;
    // Functions call their first argument `input` where methods call it `self`; NumPy's names are understood
    // too.
    if (i == total) {
      const auto is = [key](const char* text) { return PyUnicode_CompareWithASCIIString(key, text) == 0; };
      const char* alias = is("input") ? "self" : is("axis") ? "dim" : is("keepdims") ? "keepdim" : nullptr;
      for (i = 0; alias && i < total && schema.arguments[i].name != alias;) ++i;
      if (!alias) i = total;
    }
    // NumPy's functions pass on an out=None.
    if (i == total && args[count + k] == Py_None && PyUnicode_CompareWithASCIIString(key, "out") == 0)
      continue;
    if (i == total) return fail("got an unexpected keyword argument '", PyUnicode_AsUTF8(key), "'");
    if (given >> i & 1) return fail("got multiple values for argument '", schema.arguments[i].name, "'");
    PyObject* object = args[count + k];
    // dtype=None and the like mean the default.
    if (object == Py_None && schema.arguments[i].has_default && !schema.arguments[i].optional) {
      return fail("argument '", schema.arguments[i].name, "' must not be None");
    }
    if (!read_value(object, schema.arguments[i], values[i])) {
      return fail("argument '", schema.arguments[i].name, "' must not be ", type_name(object));
    }
    given |= 1u << i;
  }
  for (size_t i = 0; i < total; ++i) {
    if (given >> i & 1) continue;
    const Argument& argument = schema.arguments[i];
    if (argument.has_default) {
      if (argument.type == ArgType::kOperand && std::holds_alternative<Scalar>(argument.default_value)) {
        values[i] = wrap_number(std::get<Scalar>(argument.default_value));
      } else {
        values[i] = argument.default_value;
      }
    } else if (argument.variadic) {
      if (argument.type == ArgType::kTensorList) {
        values[i] = TensorList();
      } else {
        values[i] = Dims();
      }
    } else {
      return fail("missing required argument '", argument.name, "' (position ", i + 1, ")");
    }
  }
  return true;
}

/// About how many elements a call works on. Copies from and to a GPU wait for it, whatever they move.
int64_t count_work(const Schema& schema, std::span<const Value> values) {
  int64_t elements = 0;
  bool on_gpu = false;
  for (const Value& value : values) {
    if (const Tensor* tensor = std::get_if<Tensor>(&value)) {
      if (!tensor->defined()) continue;
      elements += tensor->numel();
      on_gpu |= tensor->device().is_cuda();
    } else if (const Device* device = std::get_if<Device>(&value)) {
      on_gpu |= device->is_cuda();
    } else if (const TensorList* list = std::get_if<TensorList>(&value)) {
      for (const Tensor& item : *list) elements += item.numel();
    } else if (const Dims* sizes = std::get_if<Dims>(&value)) {
      int64_t product = 1;
      for (const int64_t size : *sizes) {
        if (__builtin_mul_overflow(product, std::max<int64_t>(size, 1), &product)) return INT64_MAX;
      }
      elements = std::max(elements, product);
    }
  }
  const bool waits = on_gpu && (schema.name == "to" || schema.name == "cpu" || schema.name == "copy_");
  return waits ? INT64_MAX : elements;
}

PyObject* run(const Schema& schema, std::span<Value> values) {
  Value result;
  {
    const GilRelease release(count_work(schema, values));
    schema.call(values, result);
  }
  return wrap_result(result, schema);
}

/// A named tuple type such as `opsin.return_types.max`, made on first use.
PyTypeObject* result_type_of(const Schema& schema) {
  static auto* types = new std::map<std::string, PyTypeObject*>;
  PyTypeObject*& type = (*types)[schema.name];
  if (!type) {
    auto* text = new std::string("opsin.return_types." + schema.name);
    auto* fields = new std::vector<PyStructSequence_Field>;
    for (const std::string& field : schema.result_names) fields->push_back({field.c_str(), nullptr});
    fields->push_back({nullptr, nullptr});
    PyStructSequence_Desc description{text->c_str(), nullptr, fields->data(),
                                      static_cast<int>(schema.result_names.size())};
    type = PyStructSequence_NewType(&description);
  }
  return type;
}

PyObject* wrap_list(const TensorList& tensors, const Schema& schema) {
  const auto size = static_cast<Py_ssize_t>(tensors.size());
  // "Tensor|Tensor[]": how many results there are depends on the arguments (return_indices).
  if (size == 1 && schema.result.starts_with("Tensor|")) return wrap(tensors[0]);
  if (schema.result_names.empty()) {
    PyObject* tuple = PyTuple_New(size);
    for (Py_ssize_t i = 0; i < size; ++i) PyTuple_SET_ITEM(tuple, i, wrap(tensors[static_cast<size_t>(i)]));
    return tuple;
  }
  PyObject* sequence = PyStructSequence_New(result_type_of(schema));
  for (Py_ssize_t i = 0; i < size; ++i)
    PyStructSequence_SetItem(sequence, i, wrap(tensors[static_cast<size_t>(i)]));
  return sequence;
}

}  // namespace

PyObject* wrap_result(Value& value, const Schema& schema) {
  return std::visit(
      [&]<class T>(const T& result) -> PyObject* {
        if constexpr (std::is_same_v<T, Tensor>) {
          return wrap(result);
        } else if constexpr (std::is_same_v<T, TensorList>) {
          return wrap_list(result, schema);
        } else if constexpr (std::is_same_v<T, int64_t>) {
          return PyLong_FromLongLong(result);
        } else if constexpr (std::is_same_v<T, double>) {
          return PyFloat_FromDouble(result);
        } else if constexpr (std::is_same_v<T, bool>) {
          return PyBool_FromLong(result);
        } else if constexpr (std::is_same_v<T, Scalar>) {
          return wrap_scalar(result);
        } else if constexpr (std::is_same_v<T, Dims>) {
          return wrap_size(result);
        } else if constexpr (std::is_same_v<T, DType>) {
          return wrap_dtype(result);
        } else {
          Py_RETURN_NONE;
        }
      },
      value);
}

PyObject* call_overloads(std::span<const Schema* const> overloads, PyObject* const* args, Py_ssize_t count,
                         PyObject* keyword_names) {
  return guarded([&]() -> PyObject* {
    for (const Schema* schema : overloads) {
      Value values[kMaxArguments];
      if (read_arguments(*schema, args, count, keyword_names, values, nullptr)) {
        return run(*schema, {values, schema->arguments.size()});
      }
    }
    std::string message;
    if (overloads.size() == 1) {
      Value values[kMaxArguments];
      read_arguments(*overloads[0], args, count, keyword_names, values, &message);
      message += "; expected " + overloads[0]->text;
    } else {
      message = overloads[0]->name + "(): received an invalid combination of arguments - got (";
      for (Py_ssize_t i = 0; i < count; ++i) message += (i ? ", " : "") + type_name(args[i]);
      for (Py_ssize_t i = 0; keyword_names && i < PyTuple_GET_SIZE(keyword_names); ++i) {
        message += std::string(count + i ? ", " : "") + PyUnicode_AsUTF8(PyTuple_GET_ITEM(keyword_names, i)) +
                   "=" + type_name(args[count + i]);
      }
      message += "), but expected one of:";
      for (const Schema* schema : overloads) message += "\n * " + schema->text;
    }
    throw TypeError(message);
  });
}

}  // namespace opsin::python

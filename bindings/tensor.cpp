// The Python type `opsin.Tensor`: life cycle, identity, operators and attributes.
#include "python_tensor.h"

#include <cstring>

#include <structmember.h>

#include <opsin/ops.h>

#include "autograd/history.h"

namespace opsin::python {

PyTypeObject* tensor_type = nullptr;

namespace {

TensorObject* self_of(PyObject* object) { return reinterpret_cast<TensorObject*>(object); }

void release_binding(BindingState& binding) {
  if (!Py_IsInitialized()) return;
  const py::gil_scoped_acquire gil;
  Py_CLEAR(*reinterpret_cast<PyObject**>(&binding.type));
  Py_CLEAR(*reinterpret_cast<PyObject**>(&binding.attributes));
}

PyObject* make_object(PyTypeObject* type, const Tensor& tensor) {
  PyObject* object = type->tp_alloc(type, 0);
  if (!object) return nullptr;
  new (&self_of(object)->tensor) Tensor(tensor);
  tensor.impl()->binding.wrapper = object;
  return object;
}

void tensor_dealloc(PyObject* object) {
  PyObject_GC_UnTrack(object);
  TensorObject* self = self_of(object);
  PyTypeObject* type = Py_TYPE(object);
  if (self->weak_references) PyObject_ClearWeakRefs(object);
  if (self->tensor.defined()) {
    BindingState& binding = self->tensor.impl()->binding;
    binding.wrapper = nullptr;
    const bool has_attributes = self->attributes && PyDict_GET_SIZE(self->attributes) > 0;
    if (self->tensor.ref()->use_count() > 1 && (type != tensor_type || has_attributes)) {
      // The tensor lives on in the engine: it keeps the class and attributes for the next time it comes to
      // Python.
      if (type != tensor_type) binding.type = Py_NewRef(reinterpret_cast<PyObject*>(type));
      binding.attributes = std::exchange(self->attributes, nullptr);
      binding.release = release_binding;
    }
  }
  Py_CLEAR(self->attributes);
  self->tensor.~Tensor();
  type->tp_free(object);
  Py_DECREF(type);
}

int tensor_traverse(PyObject* object, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(object));
  const TensorObject* self = self_of(object);
  Py_VISIT(self->attributes);
  return self->tensor.defined() ? visit_hooks(self->tensor, visit, arg) : 0;
}

int tensor_clear(PyObject* object) {
  TensorObject* self = self_of(object);
  Py_CLEAR(self->attributes);
  if (self->tensor.defined()) drop_hooks(self->tensor);
  return 0;
}

// --- operators ---

using BinaryFunction = Tensor (*)(const Tensor&, const Tensor&);

/// An operand of an operator; undefined if it is neither tensor nor number.
Tensor operand(PyObject* object) { return is_tensor(object) ? unwrap(object) : wrap_python_number(object); }

template <BinaryFunction kFunction>
PyObject* binary_operator(PyObject* left, PyObject* right) {
  return guarded([&]() -> PyObject* {
    const Tensor a = operand(left);
    const Tensor b = a.defined() ? operand(right) : Tensor();
    if (!b.defined()) return Py_NewRef(Py_NotImplemented);
    Tensor result;
    {
      const GilRelease release(std::max(a.numel(), b.numel()));
      result = kFunction(a, b);
    }
    return wrap(result);
  });
}

template <BinaryFunction kFunction>
PyObject* inplace_operator(PyObject* left, PyObject* right) {
  return guarded([&]() -> PyObject* {
    const Tensor other = operand(right);
    if (!other.defined()) return Py_NewRef(Py_NotImplemented);
    const Tensor self = unwrap(left);
    {
      const GilRelease release(self.numel());
      kFunction(self, other);
    }
    return Py_NewRef(left);
  });
}

Tensor add_tensors(const Tensor& a, const Tensor& b) { return add(a, b); }
Tensor sub_tensors(const Tensor& a, const Tensor& b) { return sub(a, b); }
Tensor add_tensors_(const Tensor& a, const Tensor& b) { return add_(a, b); }
Tensor sub_tensors_(const Tensor& a, const Tensor& b) { return sub_(a, b); }
Tensor div_tensors(const Tensor& a, const Tensor& b) { return div(a, b); }
Tensor div_tensors_(const Tensor& a, const Tensor& b) { return div_(a, b); }

PyObject* compare(PyObject* left, PyObject* right, int operation) {
  switch (operation) {
    case Py_LT:
      return binary_operator<lt>(left, right);
    case Py_LE:
      return binary_operator<le>(left, right);
    case Py_GT:
      return binary_operator<gt>(left, right);
    case Py_GE:
      return binary_operator<ge>(left, right);
    case Py_EQ:
      return binary_operator<eq>(left, right);
    default:
      return binary_operator<ne>(left, right);
  }
}

/// Operators that go through the method of that name, found on the type.
PyObject* call_method(PyObject* self, const char* method, PyObject* other = nullptr) {
  return other ? PyObject_CallMethod(self, method, "O", other) : PyObject_CallMethod(self, method, nullptr);
}
template <const char* kMethod>
PyObject* method_operator(PyObject* left, PyObject* right) {
  if (is_tensor(left)) {
    if (!is_tensor(right) && !wrap_python_number(right).defined()) return Py_NewRef(Py_NotImplemented);
    return call_method(left, kMethod, right);
  }
  return guarded([&]() -> PyObject* {
    const Tensor number = wrap_python_number(left);
    if (!number.defined()) return Py_NewRef(Py_NotImplemented);
    const py::object object = to_python(number);
    return call_method(object.ptr(), kMethod, right);
  });
}
template <const char* kMethod>
PyObject* inplace_method_operator(PyObject* left, PyObject* right) {
  return call_method(left, kMethod, right);
}
template <const char* kMethod>
PyObject* unary_operator(PyObject* self) {
  return call_method(self, kMethod);
}

constexpr char kFloorDivide[] = "floor_divide", kRemainder[] = "remainder", kMatmul[] = "matmul",
               kAnd[] = "bitwise_and", kOr[] = "bitwise_or", kXor[] = "bitwise_xor", kNot[] = "bitwise_not",
               kNeg[] = "neg", kAbs[] = "abs", kLeft[] = "bitwise_left_shift",
               kRight[] = "bitwise_right_shift", kPow[] = "pow", kAndIn[] = "bitwise_and_",
               kOrIn[] = "bitwise_or_", kXorIn[] = "bitwise_xor_", kPowIn[] = "pow_",
               kFloorDivideIn[] = "floor_divide_", kRemainderIn[] = "remainder_", kPositive[] = "positive";

PyObject* power(PyObject* base, PyObject* exponent, PyObject*) {
  return method_operator<kPow>(base, exponent);
}
PyObject* inplace_power(PyObject* base, PyObject* exponent, PyObject*) {
  return inplace_method_operator<kPowIn>(base, exponent);
}

int tensor_bool(PyObject* self) {
  return guarded(-1, [&] {
    const Tensor& tensor = unwrap(self);
    OPSIN_CHECK(Error, tensor.numel() == 1, "Boolean value of Tensor with ",
                tensor.numel() == 0 ? "no" : "more than one",
                tensor.numel() == 0 ? " values is ambiguous" : " value is ambiguous");
    return static_cast<int>(value_of(tensor).to_bool());
  });
}
PyObject* tensor_int(PyObject* self) {
  return guarded([&]() -> PyObject* {
    const Scalar value = value_of(unwrap(self));
    if (value.is_integral()) return PyLong_FromLongLong(value.to_int());
    return PyLong_FromDouble(value.to_double());
  });
}
PyObject* tensor_float(PyObject* self) {
  return guarded([&] { return PyFloat_FromDouble(value_of(unwrap(self)).to_double()); });
}
PyObject* tensor_index(PyObject* self) {
  return guarded([&]() -> PyObject* {
    const Tensor& tensor = unwrap(self);
    OPSIN_CHECK(TypeError, is_integral(tensor.dtype()) && tensor.numel() == 1,
                "only integer tensors of a single element can be converted to an index");
    return PyLong_FromLongLong(value_of(tensor).to_int());
  });
}

Py_ssize_t tensor_length(PyObject* self) {
  return guarded(Py_ssize_t{-1}, [&] {
    const Tensor& tensor = unwrap(self);
    OPSIN_CHECK(TypeError, tensor.dim() > 0, "len() of a 0-d tensor");
    return static_cast<Py_ssize_t>(tensor.sizes()[0]);
  });
}

Py_hash_t tensor_hash(PyObject* self) {
  return static_cast<Py_hash_t>(reinterpret_cast<uintptr_t>(unwrap(self).impl()) >> 4);
}

PyObject* tensor_repr(PyObject* self) {
  return guarded([&]() -> PyObject* {
    return py::module_::import("opsin._tensor_repr").attr("tensor_repr")(py::handle(self)).release().ptr();
  });
}

// --- attributes ---

template <class F>
PyObject* get(PyObject* self, F&& body) {
  return guarded([&]() -> PyObject* { return body(unwrap(self)); });
}

#define OPSIN_GET(expression) \
  [](PyObject* self, void*) { return get(self, [](const Tensor& t) -> PyObject* { return expression; }); }

int set_requires_grad(PyObject* self, PyObject* value, void*) {
  return guarded(-1, [&] {
    if (!value || !PyBool_Check(value)) throw TypeError("requires_grad: must be a bool");
    unwrap(self).set_requires_grad(value == Py_True);
    return 0;
  });
}
int set_grad(PyObject* self, PyObject* value, void*) {
  return guarded(-1, [&] {
    if (value && value != Py_None && !is_tensor(value)) throw TypeError("grad: expected a Tensor or None");
    unwrap(self).set_grad(!value || value == Py_None ? Tensor() : unwrap(value));
    return 0;
  });
}
/// `x.data = y`: x takes over the memory and geometry of y and keeps its own history and identity.
int set_data(PyObject* self, PyObject* value, void*) {
  return guarded(-1, [&] {
    if (!value || !is_tensor(value)) throw TypeError("data: expected a Tensor");
    TensorImpl* to = unwrap(self).impl();
    TensorImpl* from = unwrap(value).impl();
    to->storage = from->storage;
    to->offset = from->offset;
    to->numel = from->numel;
    to->sizes = from->sizes;
    to->strides = from->strides;
    to->dtype = from->dtype;
    to->contiguous = from->contiguous;
    if (to->autograd && to->autograd->accumulator) {
      to->autograd->accumulator->outputs[0] = {to->sizes, to->dtype, to->storage->device};
    }
    return 0;
  });
}
unsigned long tracked_version(const Tensor& t) {
  OPSIN_CHECK(Error, !t.is_inference(), "_version: Inference tensors do not track version counter.");
  return t.version();
}
Tensor reversed_dims(const Tensor& t) {
  Dims dims(t.sizes().size());
  for (size_t i = 0; i < dims.size(); ++i) dims[i] = static_cast<int64_t>(dims.size() - 1 - i);
  return permute(t, dims);
}

PyGetSetDef attributes[] = {
    {"shape", OPSIN_GET(wrap_size(t.sizes())), nullptr, "The sizes, as opsin.Size.", nullptr},
    {"dtype", OPSIN_GET(wrap_dtype(t.dtype())), nullptr, "The element type.", nullptr},
    {"device", OPSIN_GET(wrap_device(t.device())), nullptr, "Where the memory lives.", nullptr},
    {"ndim", OPSIN_GET(PyLong_FromLongLong(t.dim())), nullptr, "The number of dimensions.", nullptr},
    {"itemsize", OPSIN_GET(PyLong_FromSize_t(item_size(t.dtype()))), nullptr, "Bytes of one element.",
     nullptr},
    {"nbytes", OPSIN_GET(PyLong_FromLongLong(t.numel() * static_cast<int64_t>(item_size(t.dtype())))),
     nullptr, "Bytes of all elements.", nullptr},
    {"requires_grad", OPSIN_GET(PyBool_FromLong(t.requires_grad())), set_requires_grad,
     "Whether calls on this tensor are recorded for gradients.", nullptr},
    {"is_leaf", OPSIN_GET(PyBool_FromLong(t.is_leaf())), nullptr,
     "Whether no recorded call made this tensor.", nullptr},
    {"grad", OPSIN_GET(wrap(t.grad())), set_grad, "The accumulated gradient, or None.", nullptr},
    {"output_nr", OPSIN_GET(PyLong_FromLong(t.output_nr())), nullptr,
     "Which output of grad_fn this tensor is.", nullptr},
    {"_version", OPSIN_GET(PyLong_FromUnsignedLong(tracked_version(t))), nullptr,
     "How often the memory was changed in place.", nullptr},
    {"data", OPSIN_GET(wrap(t.detach())), set_data, "The same memory outside the graph.", nullptr},
    {"is_cuda", OPSIN_GET(PyBool_FromLong(t.device().is_cuda())), nullptr, "Whether the memory is on a GPU.",
     nullptr},
    {"T", OPSIN_GET(wrap(reversed_dims(t))), nullptr, "The dimensions in reverse order.", nullptr},
    {"mT", OPSIN_GET(wrap(transpose(t, -2, -1))), nullptr, "The last two dimensions swapped.", nullptr},
    {"retains_grad", OPSIN_GET(PyBool_FromLong(t.impl()->autograd&& t.impl()->autograd->retains_grad)),
     nullptr, "Whether retain_grad() was called.", nullptr},
    {"_base", OPSIN_GET(wrap(t.impl()->autograd ? t.impl()->autograd->base : Tensor())), nullptr,
     "The tensor that this one is a view of, or None.", nullptr},
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, nullptr, nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr}};

PyMemberDef members[] = {
    {"__dictoffset__", T_PYSSIZET, offsetof(TensorObject, attributes), READONLY, nullptr},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(TensorObject, weak_references), READONLY, nullptr},
    {nullptr, 0, 0, 0, nullptr}};

// --- methods that are not ops ---

PyObject* dimension_or_all(PyObject* self, PyObject* const* args, Py_ssize_t count, const char* name,
                           PyObject* (*all)(const Tensor&), int64_t (*one)(const Tensor&, int64_t)) {
  return guarded([&]() -> PyObject* {
    if (count == 0 || (count == 1 && args[0] == Py_None)) return all(unwrap(self));
    if (count != 1 || !PyLong_Check(args[0])) throw TypeError(std::string(name) + "(): expected one int");
    return PyLong_FromLongLong(one(unwrap(self), PyLong_AsLongLong(args[0])));
  });
}
PyObject* tensor_size(PyObject* self, PyObject* const* args, Py_ssize_t count, PyObject* keywords) {
  const bool keyword = keywords && PyTuple_GET_SIZE(keywords) == 1;
  return dimension_or_all(
      self, args, count + keyword, "size", [](const Tensor& t) { return wrap_size(t.sizes()); },
      [](const Tensor& t, int64_t d) { return t.size(d); });
}
PyObject* tensor_stride(PyObject* self, PyObject* const* args, Py_ssize_t count, PyObject* keywords) {
  const bool keyword = keywords && PyTuple_GET_SIZE(keywords) == 1;
  return dimension_or_all(
      self, args, count + keyword, "stride",
      [](const Tensor& t) {
        // A plain tuple, unlike size().
        const py::object sizes = py::reinterpret_steal<py::object>(wrap_size(t.strides()));
        return PySequence_Tuple(sizes.ptr());
      },
      [](const Tensor& t, int64_t d) { return t.stride(d); });
}

#define OPSIN_METHOD(expression) \
  [](PyObject* self, PyObject*) { return get(self, [](const Tensor& t) -> PyObject* { return expression; }); }
#define OPSIN_FAST(function) reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function))

PyMethodDef methods[] = {
    {"size", OPSIN_FAST(tensor_size), METH_FASTCALL | METH_KEYWORDS, "size(dim=None): one size or all."},
    {"stride", OPSIN_FAST(tensor_stride), METH_FASTCALL | METH_KEYWORDS,
     "stride(dim=None): one stride or all, in elements."},
    {"dim", OPSIN_METHOD(PyLong_FromLongLong(t.dim())), METH_NOARGS, "The number of dimensions."},
    {"ndimension", OPSIN_METHOD(PyLong_FromLongLong(t.dim())), METH_NOARGS, "The number of dimensions."},
    {"numel", OPSIN_METHOD(PyLong_FromLongLong(t.numel())), METH_NOARGS, "The number of elements."},
    {"nelement", OPSIN_METHOD(PyLong_FromLongLong(t.numel())), METH_NOARGS, "The number of elements."},
    {"element_size", OPSIN_METHOD(PyLong_FromSize_t(item_size(t.dtype()))), METH_NOARGS,
     "Bytes of one element."},
    {"storage_offset", OPSIN_METHOD(PyLong_FromLongLong(t.storage_offset())), METH_NOARGS,
     "The first element's place in the storage."},
    {"data_ptr",
     [](PyObject* self, PyObject*) {
       return get(self, [](const Tensor& t) {
         t.impl()->storage->escaped = true;
         return PyLong_FromVoidPtr(t.impl()->mutable_data());
       });
     },
     METH_NOARGS, "The address of the first element."},
    {"is_floating_point", OPSIN_METHOD(PyBool_FromLong(is_floating_point(t.dtype()))), METH_NOARGS,
     "Whether the dtype is real floating point."},
    {"is_complex", OPSIN_METHOD(PyBool_FromLong(is_complex(t.dtype()))), METH_NOARGS,
     "Whether the dtype is complex."},
    {"is_signed", OPSIN_METHOD(PyBool_FromLong(t.dtype() != opsin::kBool && t.dtype() != kUInt8)),
     METH_NOARGS, "Whether values can be negative."},
    {"is_inference", OPSIN_METHOD(PyBool_FromLong(t.is_inference())), METH_NOARGS,
     "Whether the memory was allocated in inference_mode: autograd cannot use it."},
    {"item", OPSIN_METHOD(wrap_scalar(value_of(t))), METH_NOARGS, "The value of a tensor of one element."},
    {"retain_grad", OPSIN_METHOD((t.retain_grad(), Py_NewRef(Py_None))), METH_NOARGS,
     "Keeps the gradient of this inner tensor in .grad."},
    {nullptr, nullptr, 0, nullptr}};

PyObject* make_subclass(PyObject*, PyObject* args, PyObject* keywords) {
  return guarded([&]() -> PyObject* {
    static const char* names[] = {"cls", "data", "requires_grad", nullptr};
    PyObject *type = nullptr, *data = nullptr;
    int requires_grad = 0;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "OO|p", const_cast<char**>(names), &type, &data,
                                     &requires_grad)) {
      return nullptr;
    }
    OPSIN_CHECK(TypeError,
                PyType_Check(type) && PyType_IsSubtype(reinterpret_cast<PyTypeObject*>(type), tensor_type),
                "_make_subclass: expected a subclass of Tensor");
    OPSIN_CHECK(TypeError, is_tensor(data), "_make_subclass: expected a Tensor as data, got ",
                Py_TYPE(data)->tp_name);
    const Tensor tensor = unwrap(data).detach();
    tensor.set_requires_grad(requires_grad != 0);
    return make_object(reinterpret_cast<PyTypeObject*>(type), tensor);
  });
}
PyMethodDef static_methods[] = {
    {"_make_subclass", OPSIN_FAST(make_subclass), METH_VARARGS | METH_KEYWORDS | METH_STATIC,
     "_make_subclass(cls, data, requires_grad=False): the memory of data as a tensor of class cls."},
    {nullptr, nullptr, 0, nullptr}};

PyObject* tensor_new(PyTypeObject* type, PyObject* args, PyObject*) {
  return guarded([&]() -> PyObject* {
    const Py_ssize_t count = PyTuple_GET_SIZE(args);
    Tensor tensor;
    if (count == 1 && !PyLong_Check(PyTuple_GET_ITEM(args, 0))) {
      tensor = tensor_from_data(PyTuple_GET_ITEM(args, 0), default_dtype());
    } else {
      Dims sizes;
      for (Py_ssize_t i = 0; i < count; ++i)
        sizes.push_back(py::cast<int64_t>(py::handle(PyTuple_GET_ITEM(args, i))));
      tensor = empty(count == 0 ? Dims{0} : sizes);
    }
    return make_object(type, tensor);
  });
}

}  // namespace

PyObject* wrap(const Tensor& tensor) {
  if (!tensor.defined()) Py_RETURN_NONE;
  BindingState& binding = tensor.impl()->binding;
  if (binding.wrapper) return Py_NewRef(static_cast<PyObject*>(binding.wrapper));
  auto* type = binding.type ? static_cast<PyTypeObject*>(binding.type) : tensor_type;
  PyObject* object = make_object(type, tensor);
  if (object && binding.release) {
    self_of(object)->attributes = static_cast<PyObject*>(std::exchange(binding.attributes, nullptr));
    Py_XDECREF(static_cast<PyObject*>(std::exchange(binding.type, nullptr)));
    binding.release = nullptr;
  }
  return object;
}

void bind_tensor(py::module_& module) {
  PyType_Slot slots[] = {
      {Py_tp_new, reinterpret_cast<void*>(tensor_new)},
      {Py_tp_dealloc, reinterpret_cast<void*>(tensor_dealloc)},
      {Py_tp_traverse, reinterpret_cast<void*>(tensor_traverse)},
      {Py_tp_clear, reinterpret_cast<void*>(tensor_clear)},
      {Py_tp_repr, reinterpret_cast<void*>(tensor_repr)},
      {Py_tp_hash, reinterpret_cast<void*>(tensor_hash)},
      {Py_tp_richcompare, reinterpret_cast<void*>(compare)},
      {Py_tp_getset, attributes},
      {Py_tp_members, members},
      {Py_tp_methods, methods},
      {Py_tp_doc, const_cast<char*>("A multi-dimensional array that records what is computed with it.")},
      {Py_mp_length, reinterpret_cast<void*>(tensor_length)},
      {Py_mp_subscript, reinterpret_cast<void*>(get_item)},
      {Py_mp_ass_subscript, reinterpret_cast<void*>(set_item)},
      {Py_nb_add, reinterpret_cast<void*>(binary_operator<add_tensors>)},
      {Py_nb_subtract, reinterpret_cast<void*>(binary_operator<sub_tensors>)},
      {Py_nb_multiply, reinterpret_cast<void*>(binary_operator<mul>)},
      {Py_nb_true_divide, reinterpret_cast<void*>(binary_operator<div_tensors>)},
      {Py_nb_floor_divide, reinterpret_cast<void*>(method_operator<kFloorDivide>)},
      {Py_nb_remainder, reinterpret_cast<void*>(method_operator<kRemainder>)},
      {Py_nb_matrix_multiply, reinterpret_cast<void*>(method_operator<kMatmul>)},
      {Py_nb_power, reinterpret_cast<void*>(power)},
      {Py_nb_and, reinterpret_cast<void*>(method_operator<kAnd>)},
      {Py_nb_or, reinterpret_cast<void*>(method_operator<kOr>)},
      {Py_nb_xor, reinterpret_cast<void*>(method_operator<kXor>)},
      {Py_nb_lshift, reinterpret_cast<void*>(method_operator<kLeft>)},
      {Py_nb_rshift, reinterpret_cast<void*>(method_operator<kRight>)},
      {Py_nb_inplace_add, reinterpret_cast<void*>(inplace_operator<add_tensors_>)},
      {Py_nb_inplace_subtract, reinterpret_cast<void*>(inplace_operator<sub_tensors_>)},
      {Py_nb_inplace_multiply, reinterpret_cast<void*>(inplace_operator<mul_>)},
      {Py_nb_inplace_true_divide, reinterpret_cast<void*>(inplace_operator<div_tensors_>)},
      {Py_nb_inplace_floor_divide, reinterpret_cast<void*>(inplace_method_operator<kFloorDivideIn>)},
      {Py_nb_inplace_remainder, reinterpret_cast<void*>(inplace_method_operator<kRemainderIn>)},
      {Py_nb_inplace_power, reinterpret_cast<void*>(inplace_power)},
      {Py_nb_inplace_and, reinterpret_cast<void*>(inplace_method_operator<kAndIn>)},
      {Py_nb_inplace_or, reinterpret_cast<void*>(inplace_method_operator<kOrIn>)},
      {Py_nb_inplace_xor, reinterpret_cast<void*>(inplace_method_operator<kXorIn>)},
      {Py_nb_negative, reinterpret_cast<void*>(unary_operator<kNeg>)},
      {Py_nb_positive, reinterpret_cast<void*>(unary_operator<kPositive>)},
      {Py_nb_absolute, reinterpret_cast<void*>(unary_operator<kAbs>)},
      {Py_nb_invert, reinterpret_cast<void*>(unary_operator<kNot>)},
      {Py_nb_bool, reinterpret_cast<void*>(tensor_bool)},
      {Py_nb_int, reinterpret_cast<void*>(tensor_int)},
      {Py_nb_float, reinterpret_cast<void*>(tensor_float)},
      {Py_nb_index, reinterpret_cast<void*>(tensor_index)},
      {0, nullptr}};
  PyType_Spec spec = {"opsin.Tensor", sizeof(TensorObject), 0,
                      Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC, slots};
  PyObject* type = PyType_FromSpec(&spec);
  if (!type) throw py::error_already_set();
  tensor_type = reinterpret_cast<PyTypeObject*>(type);
  const py::object static_method =
      py::reinterpret_steal<py::object>(PyCFunction_NewEx(static_methods, nullptr, nullptr));
  py::handle(type).attr("_make_subclass") =
      py::reinterpret_steal<py::object>(PyStaticMethod_New(static_method.ptr()));
  py::handle(type).attr("__array_priority__") = 1000;
  add_op_methods(type);
  module.attr("Tensor") = py::handle(type);
}

}  // namespace opsin::python

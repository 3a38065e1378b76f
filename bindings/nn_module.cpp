// What every call of a layer runs of `opsin.nn.Module`: `__call__`, and the look-up of what is registered.
//
// Parameters, buffers and submodules lie in dicts of their own (`_parameters`, ...), where `__getattr__`
// finds what the ordinary look-up does not. Python asks `__getattr__` only after it made an AttributeError,
// which costs more than a small op; classes that leave the look-up to Module get one that makes none.
#include "python_tensor.h"

namespace opsin::python {

namespace {

PyTypeObject* base_type = nullptr;
PyObject* base_getattr = nullptr;  ///< Module.__getattr__, as it lies in the class
PyObject* object_getattribute = nullptr;

struct Names {
  PyObject* registries[3];
  PyObject *hooked, *call_with_hooks, *forward, *getattr, *getattribute;
};
Names names;

/// A new reference to what is registered under `name`; null, perhaps without an error, if nothing is.
PyObject* find_registered(PyObject* self, PyObject* name) {
  PyObject* const state = PyObject_GenericGetDict(self, nullptr);
  if (!state) return nullptr;
  PyObject* found = nullptr;
  for (PyObject* registry : names.registries) {
    PyObject* const entries = PyDict_GetItemWithError(state, registry);
    if (entries && PyDict_Check(entries)) found = PyDict_GetItemWithError(entries, name);
    if (found || PyErr_Occurred()) break;
  }
  Py_XINCREF(found);
  Py_DECREF(state);
  return found;
}

PyObject* module_getattr(PyObject* self, PyObject* name) {
  PyObject* const found = find_registered(self, name);
  if (!found && !PyErr_Occurred()) {
    const auto* const type = reinterpret_cast<PyObject*>(Py_TYPE(self));
    PyObject* const kind = PyObject_GetAttrString(const_cast<PyObject*>(type), "__name__");
    if (!kind) return nullptr;
    PyErr_Format(PyExc_AttributeError, "'%U' object has no attribute '%S'", kind, name);
    Py_DECREF(kind);
  }
  return found;
}

/// As object's `__getattribute__` followed by `__getattr__`.
PyObject* module_getattro(PyObject* self, PyObject* name) {
  PyObject* const found = _PyObject_GenericGetAttrWithDict(self, name, nullptr, 1);
  return found || PyErr_Occurred() ? found : module_getattr(self, name);
}

PyObject* module_call(PyObject* self, PyObject* args, PyObject* keywords) {
  PyObject* const state = PyObject_GenericGetDict(self, nullptr);
  if (!state) return nullptr;
  PyObject* const hooked = PyDict_GetItemWithError(state, names.hooked);
  Py_DECREF(state);
  if (!hooked && PyErr_Occurred()) return nullptr;
  if (hooked == Py_True) {
    const py::object none = keywords ? py::object() : py::reinterpret_steal<py::object>(PyDict_New());
    return PyObject_CallMethodObjArgs(self, names.call_with_hooks, args, keywords ? keywords : none.ptr(),
                                      nullptr);
  }
  PyObject* const forward = PyObject_GetAttr(self, names.forward);
  if (!forward) return nullptr;
  PyObject* const result = PyObject_Call(forward, args, keywords);
  Py_DECREF(forward);
  return result;
}

/// Gives a class the fast look-up, unless it has a `__getattr__` or `__getattribute__` of its own.
PyObject* prepare_class(PyObject*, PyObject* object) {
  if (!PyType_Check(object) || !PyType_IsSubtype(reinterpret_cast<PyTypeObject*>(object), base_type)) {
    PyErr_SetString(PyExc_TypeError, "_prepare_class: expected a subclass of Module");
    return nullptr;
  }
  auto* const type = reinterpret_cast<PyTypeObject*>(object);
  if (_PyType_Lookup(type, names.getattr) == base_getattr &&
      _PyType_Lookup(type, names.getattribute) == object_getattribute) {
    type->tp_getattro = module_getattro;
  }
  Py_RETURN_NONE;
}

PyMethodDef methods[] = {
    {"__getattr__", module_getattr, METH_O, "What is registered under a name."},
    {"_prepare_class", prepare_class, METH_O | METH_STATIC, "Makes attributes of a subclass fast."},
    {nullptr, nullptr, 0, nullptr}};

}  // namespace

void bind_nn_module(py::module_& module) {
  names = {{PyUnicode_InternFromString("_parameters"), PyUnicode_InternFromString("_buffers"),
            PyUnicode_InternFromString("_modules")},
           PyUnicode_InternFromString("_hooked"),
           PyUnicode_InternFromString("_call_with_hooks"),
           PyUnicode_InternFromString("forward"),
           PyUnicode_InternFromString("__getattr__"),
           PyUnicode_InternFromString("__getattribute__")};
  PyType_Slot slots[] = {
      {Py_tp_call, reinterpret_cast<void*>(module_call)}, {Py_tp_methods, methods}, {0, nullptr}};
  PyType_Spec spec = {"opsin._C._ModuleBase", sizeof(PyObject), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
                      slots};
  base_type = reinterpret_cast<PyTypeObject*>(PyType_FromSpec(&spec));
  if (!base_type) throw py::error_already_set();
  base_getattr = _PyType_Lookup(base_type, names.getattr);
  object_getattribute = _PyType_Lookup(&PyBaseObject_Type, names.getattribute);
  module.attr("_ModuleBase") = py::reinterpret_borrow<py::object>(reinterpret_cast<PyObject*>(base_type));
}

}  // namespace opsin::python

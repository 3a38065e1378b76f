// Op functions as Python callables: one small object per name, called through vectorcall, that works as a
// function and, put on a class, as a method.
#include "arguments.h"

#include <algorithm>
#include <map>
#include <set>

#include <structmember.h>

namespace opsin::python {

namespace {

struct FunctionObject {
  PyObject_HEAD vectorcallfunc call;
  std::vector<const Schema*>* overloads;
  bool method;
};

PyTypeObject* function_type = nullptr;

FunctionObject* self_of(PyObject* object) { return reinterpret_cast<FunctionObject*>(object); }

PyObject* function_call(PyObject* self, PyObject* const* args, size_t flags, PyObject* keyword_names) {
  return call_overloads(*self_of(self)->overloads, args, PyVectorcall_NARGS(flags), keyword_names);
}

void function_dealloc(PyObject* self) {
  PyTypeObject* type = Py_TYPE(self);
  delete self_of(self)->overloads;
  type->tp_free(self);
  Py_DECREF(type);
}

PyObject* function_get(PyObject* self, PyObject* instance, PyObject*) {
  if (!instance || instance == Py_None) return Py_NewRef(self);
  return PyMethod_New(self, instance);
}

const Schema& first(PyObject* self) { return *self_of(self)->overloads->front(); }

PyObject* function_repr(PyObject* self) {
  return PyUnicode_FromFormat("<opsin function %s>", first(self).name.c_str());
}
PyObject* function_name(PyObject* self, void*) { return PyUnicode_FromString(first(self).name.c_str()); }
PyObject* function_qualname(PyObject* self, void*) {
  const Schema& schema = first(self);
  return PyUnicode_FromString(
      (schema.space.empty() ? schema.name : schema.space + "." + schema.name).c_str());
}
PyObject* function_module(PyObject* self, void*) {
  const Schema& schema = first(self);
  return PyUnicode_FromString(
      schema.space.empty() || schema.space == "Tensor" ? "opsin" : ("opsin." + schema.space).c_str());
}
PyObject* function_doc(PyObject* self, void*) {
  std::string text;
  for (const Schema* schema : *self_of(self)->overloads) {
    if (!text.empty()) text += "\n\n";
    text += schema->text + "\n\n" + schema->doc;
  }
  return PyUnicode_FromString(text.c_str());
}
/// For inspect and help(), which can show one signature: overloads have none, and say so in their text.
PyObject* function_signature(PyObject* self, void*) {
  if (self_of(self)->overloads->size() > 1) {
    PyErr_SetString(PyExc_AttributeError, "__signature__: a function with overloads has several");
    return nullptr;
  }
  return guarded([&] {
    return py::module_::import("opsin._schema")
        .attr("signature")(first(self).text, self_of(self)->method)
        .release()
        .ptr();
  });
}
PyObject* function_reduce(PyObject* self, PyObject*) { return function_name(self, nullptr); }

PyGetSetDef function_attributes[] = {{"__name__", function_name, nullptr, nullptr, nullptr},
                                     {"__qualname__", function_qualname, nullptr, nullptr, nullptr},
                                     {"__module__", function_module, nullptr, nullptr, nullptr},
                                     {"__doc__", function_doc, nullptr, nullptr, nullptr},
                                     {"__signature__", function_signature, nullptr, nullptr, nullptr},
                                     {nullptr, nullptr, nullptr, nullptr, nullptr}};
PyMethodDef function_methods[] = {{"__reduce__", function_reduce, METH_NOARGS, nullptr},
                                  {nullptr, nullptr, 0, nullptr}};
PyMemberDef function_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(FunctionObject, call), READONLY, nullptr},
    {nullptr, 0, 0, 0, nullptr}};

void make_function_type() {
  PyType_Slot slots[] = {{Py_tp_dealloc, reinterpret_cast<void*>(function_dealloc)},
                         {Py_tp_call, reinterpret_cast<void*>(PyVectorcall_Call)},
                         {Py_tp_descr_get, reinterpret_cast<void*>(function_get)},
                         {Py_tp_repr, reinterpret_cast<void*>(function_repr)},
                         {Py_tp_getset, function_attributes},
                         {Py_tp_methods, function_methods},
                         {Py_tp_members, function_members},
                         {0, nullptr}};
  PyType_Spec spec = {"opsin.function", sizeof(FunctionObject), 0,
                      Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_METHOD_DESCRIPTOR, slots};
  function_type = reinterpret_cast<PyTypeObject*>(PyType_FromSpec(&spec));
  if (!function_type) throw py::error_already_set();
}

py::object make_function(std::vector<const Schema*> overloads, bool method) {
  PyObject* object = function_type->tp_alloc(function_type, 0);
  if (!object) throw py::error_already_set();
  self_of(object)->call = function_call;
  self_of(object)->overloads = new std::vector<const Schema*>(std::move(overloads));
  self_of(object)->method = method;
  return py::reinterpret_steal<py::object>(object);
}

using ByName = std::map<std::string, std::vector<const Schema*>>;

ByName select(bool (*wanted)(const Schema&, const std::string&), const std::string& space) {
  ByName result;
  for (const auto& schema : registry().schemas()) {
    if (wanted(*schema, space)) result[schema->name].push_back(schema.get());
  }
  return result;
}

}  // namespace

void add_op_methods(PyObject* type) {
  if (!function_type) make_function_type();
  const ByName methods =
      select([](const Schema& s,
                const std::string&) { return s.space == "Tensor" || (s.space.empty() && s.is_method()); },
             "");
  for (const auto& [name, overloads] : methods) {
    if (PyObject_SetAttrString(type, name.c_str(), make_function(overloads, true).ptr()) < 0)
      throw py::error_already_set();
  }
}

void list_public_names(py::module_& module) {
  py::list names;
  for (const auto& [name, _] : module.attr("__dict__").cast<py::dict>()) {
    if (!name.cast<std::string>().starts_with('_')) names.append(name);
  }
  names.attr("sort")();
  module.attr("__all__") = names;
}

void bind_functions(py::module_& module) {
  // opsin._C._functions, opsin._C._nn_functional, ...: modules to import from, which type checkers
  // understand.
  std::set<std::string> spaces;
  for (const auto& schema : registry().schemas()) {
    if (schema->is_function()) spaces.insert(schema->space);
  }
  for (const std::string& space : spaces) {
    std::string name = "_" + (space.empty() ? "functions" : space);
    std::replace(name.begin(), name.end(), '.', '_');
    py::module_ functions = module.def_submodule(name.c_str());
    for (const auto& [function, overloads] : select(
             [](const Schema& s, const std::string& wanted) { return s.is_function() && s.space == wanted; },
             space)) {
      functions.attr(function.c_str()) = make_function(overloads, false);
    }
    list_public_names(functions);
  }
  module.def(
      "_schemas",
      [] {
        py::list rows;
        for (const auto& schema : registry().schemas()) {
          py::dict row;
          row["name"] = schema->name;
          row["ns"] = schema->space;
          row["schema"] = schema->text;
          row["doc"] = schema->doc;
          row["method"] = schema->is_method() && (schema->space.empty() || schema->space == "Tensor");
          row["function"] = schema->is_function();
          rows.append(row);
        }
        return rows;
      },
      "The schema of every op: what stubs, docs and the coverage test are made from.");
}

}  // namespace opsin::python

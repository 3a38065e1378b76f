// From Python arguments to the values of an op, by its schema.
#pragma once

#include "python_tensor.h"

#include "core/registry.h"

namespace opsin::python {

/// Calls the first overload that takes the arguments (vectorcall convention). A new reference, or null with a
/// TypeError.
PyObject* call_overloads(std::span<const Schema* const> overloads, PyObject* const* args, Py_ssize_t count,
                         PyObject* keyword_names);
/// The Python object for what an op returned.
PyObject* wrap_result(Value& value, const Schema& schema);

}  // namespace opsin::python

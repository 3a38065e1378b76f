// self[index] and self[index] = value with NumPy's rules: integers, slices, None, ..., bools and tensors.
#include "python_tensor.h"

#include <pybind11/numpy.h>

#include <opsin/ops.h>

namespace opsin::python {

namespace {

/// What an index comes to: a view by the basic parts, and index tensors (undefined = the whole dimension) for
/// the rest, one for each dimension but for masks, which stand for as many as they have.
struct Indexed {
  Tensor view;
  TensorList indices;
  bool advanced = false;
  size_t masked = 0;  ///< Dimensions that masks so far take beyond their entry.
};

int64_t read_slice_bound(PyObject* object, int64_t missing) {
  if (object == Py_None) return missing;
  const int64_t value = PyNumber_AsSsize_t(object, nullptr);
  if (value == -1 && PyErr_Occurred()) throw py::error_already_set();
  return value;
}

/// Dimensions that one entry of an index uses up.
int64_t dims_used(PyObject* item) {
  if (item == Py_None || item == Py_Ellipsis || PyBool_Check(item)) return 0;
  if (is_tensor(item)) {
    const Tensor& tensor = unwrap(item);
    return tensor.dtype() == opsin::kBool || tensor.dtype() == kUInt8 ? tensor.dim() : 1;
  }
  if (py::isinstance<py::array>(item)) {
    const auto array = py::reinterpret_borrow<py::array>(item);
    return array.dtype().kind() == 'b' ? array.ndim() : 1;
  }
  return 1;
}

void add_index(Indexed& result, size_t dim, const Tensor& index) {
  const size_t entry = dim - result.masked;
  if (result.indices.size() <= entry) result.indices.resize(entry + 1);
  result.indices[entry] = index;
  result.advanced = true;
}

/// Applies one entry at dimension `dim` of the view; moves `dim` past what the entry leaves.
void apply(Indexed& result, PyObject* item, size_t& dim, int64_t skipped) {
  Tensor& view = result.view;
  const auto position = static_cast<int64_t>(dim);
  if (item == Py_None) {
    view = unsqueeze(view, position);
    ++dim;
  } else if (item == Py_Ellipsis) {
    dim += static_cast<size_t>(skipped);
  } else if (PyBool_Check(item)) {
    view = unsqueeze(view, position);
    add_index(result, dim++,
              tensor_from_data(item, opsin::kBool).sizes().empty()
                  ? reshape(tensor_from_data(item, opsin::kBool), Dims{1})
                  : Tensor());
  } else if (PySlice_Check(item)) {
    const auto* s = reinterpret_cast<PySliceObject*>(item);
    const int64_t step = read_slice_bound(s->step, 1);
    OPSIN_CHECK(ValueError, step > 0, "index: step must be greater than zero, got ", step);
    view = slice(view, position, read_slice_bound(s->start, 0), read_slice_bound(s->stop, INT64_MAX), step);
    ++dim;
  } else if (is_tensor(item)) {
    const Tensor& index = unwrap(item);
    OPSIN_CHECK(IndexError, is_integral(index.dtype()),
                "index: tensors used as indices must be long, int, byte or bool tensors, got ",
                name(index.dtype()));
    if (index.dim() == 0 && index.dtype() != opsin::kBool && index.dtype() != kUInt8) {
      view = select(view, position, index.item<int64_t>());
      return;
    }
    if (index.dim() == 0) {
      view = unsqueeze(view, position);
      add_index(result, dim++, reshape(to(index, opsin::kBool), Dims{1}));
      return;
    }
    const int64_t used = dims_used(item);
    add_index(result, dim, index);
    dim += static_cast<size_t>(used);
    result.masked += static_cast<size_t>(used - 1);
  } else if (PyLong_Check(item) || (PyIndex_Check(item) && !py::isinstance<py::array>(item))) {
    view = select(view, position, read_slice_bound(item, 0));
  } else if (PyList_Check(item) || PyTuple_Check(item) || py::isinstance<py::array>(item)) {
    Tensor index = tensor_from_data(item, std::nullopt);
    if (index.numel() == 0) index = to(index, kInt64);
    const py::object wrapped = to_python(index);
    apply(result, wrapped.ptr(), dim, skipped);
  } else {
    detail::raise<IndexError>(
        "index: only integers, slices (`:`), ellipsis (`...`), None and long or bool Variables are "
        "valid indices (got ",
        Py_TYPE(item)->tp_name, ")");
  }
}

Indexed resolve(const Tensor& self, PyObject* index) {
  Indexed result{self, {}};
  const py::tuple items =
      PyTuple_Check(index) ? py::reinterpret_borrow<py::tuple>(index) : py::make_tuple(py::handle(index));
  int64_t used = 0;
  int ellipses = 0;
  for (const py::handle item : items) {
    used += dims_used(item.ptr());
    ellipses += item.ptr() == Py_Ellipsis;
  }
  OPSIN_CHECK(IndexError, ellipses <= 1, "index: an index can only have a single ellipsis ('...')");
  OPSIN_CHECK(IndexError, used <= self.dim(), "index: too many indices for tensor of dimension ", self.dim(),
              ", got ", used);
  size_t dim = 0;
  for (const py::handle item : items) apply(result, item.ptr(), dim, self.dim() - used);
  return result;
}

}  // namespace

PyObject* get_item(PyObject* self, PyObject* index_object) {
  return guarded([&]() -> PyObject* {
    const Tensor& tensor = unwrap(self);
    if (PyLong_CheckExact(index_object)) {
      OPSIN_CHECK(
          IndexError, tensor.dim() > 0,
          "invalid index of a 0-dim tensor. Use `tensor.item()` to convert a 0-dim tensor to a number");
      return wrap(select(tensor, 0, read_slice_bound(index_object, 0)));
    }
    const Indexed target = resolve(tensor, index_object);
    if (target.advanced) return wrap(index(target.view, target.indices));
    // x[...] is a view of its own, not x.
    return wrap(target.view.is_same(tensor) ? view(tensor, tensor.sizes()) : target.view);
  });
}

int set_item(PyObject* self, PyObject* index_object, PyObject* value_object) {
  return guarded(-1, [&] {
    OPSIN_CHECK(TypeError, value_object, "index: Tensor does not support deleting items");
    const Tensor tensor = unwrap(self);
    Tensor value = is_tensor(value_object) ? unwrap(value_object) : wrap_python_number(value_object);
    if (!value.defined()) value = tensor_from_data(value_object, tensor.dtype());
    const Indexed target = resolve(tensor, index_object);
    if (target.advanced) {
      // What came from a list goes where the tensor is; numbers and indices on the CPU are no matter.
      const bool moves = value.device().is_cpu() && value.dim() > 0 && !is_tensor(value_object);
      const Tensor source = moves ? to(value, tensor.device()) : value;
      index_put_(target.view, target.indices, to(source, tensor.dtype()));
    } else {
      // Leading dimensions of size 1 that the target lacks are dropped, as in NumPy.
      Tensor source = value;
      while (source.dim() > target.view.dim() && source.sizes()[0] == 1) source = select(source, 0, 0);
      copy_(target.view, source);
    }
    return 0;
  });
}

}  // namespace opsin::python

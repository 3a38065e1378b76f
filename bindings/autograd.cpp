// The backward pass, gradient mode, hooks and graph nodes for Python.
#include "python_tensor.h"

#include <pybind11/stl.h>

#include <opsin/autograd.h>

namespace opsin::python {

namespace {

/// A Python callable that may be called and dropped from any thread.
std::shared_ptr<py::object> shared_callable(py::object callable) {
  return {new py::object(std::move(callable)), [](py::object* object) {
            if (!Py_IsInitialized()) return;
            const py::gil_scoped_acquire gil;
            delete object;
          }};
}

TensorList tensor_list(const py::handle& sequence, const char* op) {
  TensorList tensors;
  for (const py::handle item : sequence) {
    if (!item.is_none() && !is_tensor(item.ptr())) {
      throw TypeError(std::string(op) + ": expected a Tensor or None, got " + Py_TYPE(item.ptr())->tp_name);
    }
    tensors.push_back(item.is_none() ? Tensor() : unwrap(item.ptr()));
  }
  return tensors;
}

py::object run_backward(const py::tuple& tensors, const py::tuple& gradients, bool retain_graph,
                        bool create_graph, const py::tuple& inputs, bool allow_unused, bool accumulate) {
  const TensorList roots = tensor_list(tensors, "backward");
  const TensorList grads = tensor_list(gradients, "backward");
  const TensorList wanted = tensor_list(inputs, "grad");
  TensorList results;
  {
    const py::gil_scoped_release release;
    if (accumulate) {
      backward(roots, grads, retain_graph, create_graph, wanted);
    } else {
      results = grad(roots, wanted, grads, retain_graph, create_graph, allow_unused);
    }
  }
  py::tuple out(results.size());
  for (size_t i = 0; i < results.size(); ++i) out[i] = to_python(results[i]);
  return out;
}

uint64_t add_hook(const Tensor& tensor, py::object hook) {
  auto callable = shared_callable(std::move(hook));
  return register_hook(tensor, [callable](const Tensor& gradient) {
    const py::gil_scoped_acquire gil;
    const py::object result = (*callable)(to_python(gradient));
    if (result.is_none()) return Tensor();
    if (!is_tensor(result.ptr())) throw TypeError("hook: expected a Tensor or None as result");
    return unwrap(result.ptr());
  });
}

uint64_t add_post_accumulate_hook(const py::object& tensor, py::object hook) {
  auto callable = shared_callable(std::move(hook));
  // Weak: the hook belongs to the tensor, so it must not keep it alive.
  auto self = shared_callable(py::reinterpret_steal<py::object>(PyWeakref_NewRef(tensor.ptr(), nullptr)));
  return register_post_accumulate_grad_hook(unwrap(tensor.ptr()), [callable, self] {
    const py::gil_scoped_acquire gil;
    const py::object target = (*self)();
    if (!target.is_none()) (*callable)(target);
  });
}

/// "MulBackward" for the op "mul".
std::string node_name(const Node& node) {
  std::string name;
  bool upper = true;
  for (const char* c = node.name(); *c; ++c) {
    if (*c == '_') {
      upper = true;
      continue;
    }
    name += upper ? static_cast<char>(std::toupper(*c)) : *c;
    upper = false;
  }
  return name + (dynamic_cast<const AccumulateGrad*>(&node) ? "" : "Backward");
}

struct NodeHandle {
  Ref<Node> node;
};

}  // namespace

void bind_autograd(py::module_& module) {
  py::class_<NodeHandle>(module, "_Node", "A recorded call.")
      .def("name", [](const NodeHandle& self) { return node_name(*self.node); })
      .def_property_readonly(
          "next_functions",
          [](const NodeHandle& self) {
            py::tuple edges(self.node->edges.size());
            for (size_t i = 0; i < edges.size(); ++i) {
              const Edge& edge = self.node->edges[i];
              edges[i] = edge.node ? py::tuple(py::make_tuple(NodeHandle{edge.node}, edge.output_nr))
                                   : py::tuple(py::make_tuple(py::none(), 0));
            }
            return edges;
          })
      .def("__eq__", [](const NodeHandle& a, const NodeHandle& b) { return a.node == b.node; })
      .def("__hash__", [](const NodeHandle& a) { return reinterpret_cast<uintptr_t>(a.node.get()) >> 4; })
      .def("__repr__", [](const NodeHandle& self) { return "<" + node_name(*self.node) + ">"; });
  py::handle(reinterpret_cast<PyObject*>(tensor_type)).attr("grad_fn") =
      py::module_::import("builtins").attr("property")(py::cpp_function([](const Tensor& tensor) {
        const Ref<Node> node = tensor.grad_fn();
        return node ? py::cast(NodeHandle{node}) : py::none();
      }));

  module.def("is_grad_enabled", &GradMode::is_enabled, "Whether calls of this thread record the graph.");
  module.def("_set_grad_enabled", &GradMode::set_enabled);
  module.def("_run_backward", &run_backward);
  module.def("_add_hook", &add_hook);
  module.def("_add_post_accumulate_grad_hook", &add_post_accumulate_hook);
  module.def("_remove_hook", &remove_hook);
}

}  // namespace opsin::python

// The backward pass, gradient mode, hooks and graph nodes for Python.
#include "python_tensor.h"

#include <algorithm>

#include <pybind11/stl.h>

#include <opsin/autocast.h>
#include <opsin/autograd.h>

#include "core/profiler.h"

namespace opsin::python {

namespace {

/// A Python object that may be copied and dropped from any thread.
using Shared = std::shared_ptr<py::object>;

Shared share(py::object object) {
  return {new py::object(std::move(object)), [](py::object* held) {
            if (!Py_IsInitialized()) return;
            const py::gil_scoped_acquire gil;
            delete held;
          }};
}

struct PythonHook {
  Tensor operator()(const Tensor& gradient) const {
    const py::gil_scoped_acquire gil;
    const py::object result = (*callable)(to_python(gradient));
    if (result.is_none()) return {};
    if (!is_tensor(result.ptr())) throw TypeError("hook: expected a Tensor or None as result");
    return unwrap(result.ptr());
  }
  Shared callable;
};

struct PythonPostHook {
  void operator()() const {
    const py::gil_scoped_acquire gil;
    const py::object target = (*tensor)();
    if (!target.is_none()) (*callable)(target);
  }
  Shared callable;
  Shared tensor;  ///< A weak reference: the hook belongs to the tensor, so it must not keep it alive.
};

GradHook& function_of(Node::Hook& hook) { return hook.function; }
std::function<void()>& function_of(std::pair<uint64_t, std::function<void()>>& hook) { return hook.second; }

/// Calls `f(hooks, tag)` with the lists of hooks that nothing but `tensor` keeps, if the Python object is all
/// that keeps `tensor`: `tag` is the type of Python's hooks among them. Anything else that could bring the
/// tensor or its node back, a graph or a thread at work, holds a reference of its own.
template <class F>
void for_each_own_hooks(const Tensor& tensor, F f) {
  const AutogradMeta* meta = tensor.impl()->autograd.get();
  if (!meta || tensor.ref()->use_count() != 1) return;
  if (meta->grad_fn && meta->grad_fn->use_count() == 1)
    f(meta->grad_fn->hooks, static_cast<PythonHook*>(nullptr));
  if (meta->accumulator && meta->accumulator->use_count() == 1) {
    f(meta->accumulator->hooks, static_cast<PythonHook*>(nullptr));
    f(meta->accumulator->post_hooks, static_cast<PythonPostHook*>(nullptr));
  }
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
  return register_hook(tensor, PythonHook{share(std::move(hook))});
}

uint64_t add_post_accumulate_hook(const py::object& tensor, py::object hook) {
  auto self = py::reinterpret_steal<py::object>(PyWeakref_NewRef(tensor.ptr(), nullptr));
  return register_post_accumulate_grad_hook(unwrap(tensor.ptr()),
                                            PythonPostHook{share(std::move(hook)), share(std::move(self))});
}

std::string node_name(const Node& node) { return profiler::node_name(node.name()); }

struct NodeHandle {
  Ref<Node> node;
};

DeviceType device_type(const std::string& name) {
  if (name == "cpu") return DeviceType::kCPU;
  OPSIN_CHECK(Error, name == "cuda", "autocast: User specified an unsupported autocast device_type '", name,
              "' (expected 'cpu' or 'cuda')");
  return DeviceType::kCUDA;
}

void bind_autocast(py::module_& module) {
  py::class_<Autocast::Region>(module, "_AutocastRegion", "What a region of autocast changed.");
  module.def("_enter_autocast", [](const std::string& device, DType dtype, bool enabled, bool cache_enabled) {
    return Autocast::enter(device_type(device), dtype, enabled, cache_enabled);
  });
  module.def("_leave_autocast", &Autocast::leave);
  module.def(
      "is_autocast_enabled",
      [](const std::string& device) { return Autocast::is_enabled(device_type(device)); },
      py::arg("device_type"), "Whether this thread is inside autocast for 'cpu' or 'cuda'.");
  module.def(
      "set_autocast_enabled",
      [](const std::string& device, bool enabled) { Autocast::set_enabled(device_type(device), enabled); },
      py::arg("device_type"), py::arg("enabled"), "Turns autocast on or off; better use autocast().");
  module.def(
      "get_autocast_dtype", [](const std::string& device) { return Autocast::dtype(device_type(device)); },
      py::arg("device_type"), "The lower-precision dtype of autocast.");
  module.def(
      "set_autocast_dtype",
      [](const std::string& device, DType dtype) { Autocast::set_dtype(device_type(device), dtype); },
      py::arg("device_type"), py::arg("dtype"), "Sets the lower-precision dtype of autocast.");
  module.def("is_autocast_cache_enabled", &Autocast::is_cache_enabled,
             "Whether autocast keeps the casts of parameters.");
  module.def("set_autocast_cache_enabled", &Autocast::set_cache_enabled, py::arg("enabled"),
             "Sets whether autocast keeps the casts of parameters.");
  module.def("clear_autocast_cache", &Autocast::clear_cache, "Drops the casts that autocast keeps.");
}

}  // namespace

int visit_hooks(const Tensor& tensor, visitproc visit, void* arg) {
  int result = 0;
  for_each_own_hooks(tensor, [&]<class Hooks, class Hook>(Hooks& hooks, Hook*) {
    for (auto& entry : hooks) {
      const Hook* hook = function_of(entry).template target<Hook>();
      if (hook && hook->callable.use_count() == 1 && result == 0) result = visit(hook->callable->ptr(), arg);
    }
  });
  return result;
}

void drop_hooks(const Tensor& tensor) {
  for_each_own_hooks(tensor, []<class Hooks, class Hook>(Hooks& hooks, Hook*) {
    // Dropping a callable may run Python code that looks at the hooks, so they leave the list first.
    const auto first = std::stable_partition(
        hooks.begin(), hooks.end(), [](auto& entry) { return !function_of(entry).template target<Hook>(); });
    const Hooks dropped(std::make_move_iterator(first), std::make_move_iterator(hooks.end()));
    hooks.erase(first, hooks.end());
  });
}

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
  module.def("is_inference_mode_enabled", &InferenceMode::is_enabled,
             "Whether this thread is inside inference_mode.");
  module.def("_set_inference_mode", &InferenceMode::set_enabled);
  module.def("_run_backward", &run_backward);
  module.def("_add_hook", &add_hook);
  module.def("_add_post_accumulate_grad_hook", &add_post_accumulate_hook);
  module.def("_remove_hook", &remove_hook);
  bind_autocast(module);
}

}  // namespace opsin::python

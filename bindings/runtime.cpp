// Random numbers, threads, memory, optimizer steps, checkpoints and what a bug report needs.
#include "python_tensor.h"

#include <cstring>

#include <pybind11/stl.h>

#include <opsin/cuda.h>
#include <opsin/io.h>
#include <opsin/ops/copy.h>
#include <opsin/ops/creation.h>
#include <opsin/optim.h>
#include <opsin/random.h>
#include <opsin/version.h>

#include "cpu/allocator.h"
#include "cpu/isa.h"
#include "cpu/thread_pool.h"

namespace opsin::python {

namespace {

/// The state as a uint8 tensor, as in PyTorch.
Tensor get_state(const Generator& generator) {
  const std::vector<uint8_t> bytes = generator.get_state();
  const Tensor state = empty({static_cast<int64_t>(bytes.size())}, kUInt8);
  std::memcpy(state.mutable_data<uint8_t>(), bytes.data(), bytes.size());
  return state;
}

void set_state(Generator& generator, const Tensor& state) {
  OPSIN_CHECK(TypeError, state.defined() && state.dtype() == kUInt8,
              "set_state: expected a uint8 tensor from get_state()");
  const Tensor bytes = contiguous(to(state, opsin::kCPU));
  generator.set_state(bytes.data<uint8_t>(), static_cast<size_t>(bytes.numel()));
}

uint64_t seed_from(const py::int_& seed) {
  // Negative seeds count from the top, as in PyTorch.
  const auto value = PyLong_AsUnsignedLongLongMask(seed.ptr());
  if (PyErr_Occurred()) throw py::error_already_set();
  return value;
}

py::dict memory_stats() {
  const cpu::MemoryStats stats = cpu::memory_stats();
  py::dict result;
  result["allocated"] = stats.allocated;
  result["peak_allocated"] = stats.peak_allocated;
  result["reserved"] = stats.reserved;
  result["peak_reserved"] = stats.peak_reserved;
  result["allocations"] = stats.allocations;
  result["cache_hits"] = stats.cache_hits;
  result["system_allocations"] = stats.system_allocations;
  return result;
}

py::dict info() {
  py::dict result;
  result["version"] = OPSIN_VERSION;
  result["compiler"] = __VERSION__;
#ifdef NDEBUG
  result["build_type"] = "release";
#else
  result["build_type"] = "debug";
#endif
  result["cpu"] = cpu::cpu_name();
  result["cpu_features"] = cpu::features();
  result["isa"] = cpu::isa_name(cpu::isa());
  result["threads"] = cpu::num_threads();
  result["cuda"] = cuda::is_available() ? cuda::device_properties(0).name : "unavailable: " + cuda::why_not();
  return result;
}

TensorList tensors_of(const py::handle& sequence) {
  TensorList tensors;
  for (const py::handle item : sequence) tensors.push_back(item.cast<Tensor>());
  return tensors;
}

/// A learning rate: a number, or a tensor of one.
struct LearningRate {
  double number = 0;
  Tensor tensor;

  explicit LearningRate(const py::object& lr) {
    if (is_tensor(lr.ptr())) {
      tensor = unwrap(lr.ptr());
    } else {
      number = lr.cast<double>();
    }
  }
};

/// Whether the tensors of every other list lie where those of the first one do.
bool same_devices(const py::list& params, const py::args& columns) {
  for (const py::handle column : columns) {
    const auto list = py::reinterpret_borrow<py::list>(column);
    if (list.size() != params.size() && !list.empty()) return false;
    for (size_t i = 0; i < list.size(); ++i) {
      PyObject *a = PyList_GET_ITEM(params.ptr(), i), *b = PyList_GET_ITEM(list.ptr(), i);
      if (is_tensor(a) && is_tensor(b) && unwrap(a).device() != unwrap(b).device()) return false;
    }
  }
  return true;
}

void bind_optim(py::module_& module) {
  module.def("_same_devices", &same_devices);
  module.def("_sgd_step", [](const py::object& params, const py::object& grads, const py::object& buffers,
                             const py::object& lr, double momentum, double dampening, double weight_decay,
                             bool nesterov, bool maximize, bool first_step) {
    const TensorList p = tensors_of(params), g = tensors_of(grads), b = tensors_of(buffers);
    const LearningRate rate(lr);
    const py::gil_scoped_release release;
    sgd_step(p, g, b, {rate.number, momentum, dampening, weight_decay, nesterov, maximize}, first_step,
             rate.tensor);
  });
  module.def("_adam_step", [](const py::object& params, const py::object& grads, const py::object& exp_avgs,
                              const py::object& exp_avg_sqs, const py::object& max_exp_avg_sqs,
                              const py::object& step, const py::object& lr, double beta1, double beta2,
                              double eps, double weight_decay, bool amsgrad, bool maximize, bool decoupled) {
    const TensorList p = tensors_of(params), g = tensors_of(grads), m = tensors_of(exp_avgs),
                     v = tensors_of(exp_avg_sqs), top = tensors_of(max_exp_avg_sqs);
    // One number, or a tensor for each parameter.
    const bool counts = !py::isinstance<py::int_>(step);
    const TensorList steps = counts ? tensors_of(step) : TensorList();
    const auto number = counts ? int64_t{0} : step.cast<int64_t>();
    const LearningRate rate(lr);
    const py::gil_scoped_release release;
    adam_step(p, g, m, v, top, number,
              {rate.number, beta1, beta2, eps, weight_decay, amsgrad, maximize, decoupled}, rate.tensor,
              steps);
  });
  module.def("_unscale", [](const py::object& grads, const Tensor& scale, const Tensor& found_inf) {
    const TensorList g = tensors_of(grads);
    const py::gil_scoped_release release;
    unscale_grads(g, scale, found_inf);
  });
  module.def("_update_scale", [](const Tensor& scale, const Tensor& growth_tracker, const Tensor& found_inf,
                                 double growth_factor, double backoff_factor, int64_t growth_interval) {
    const py::gil_scoped_release release;
    update_scale_(scale, growth_tracker, found_inf, growth_factor, backoff_factor, growth_interval);
  });
}

void bind_files(py::module_& module) {
  module.def("_save_safetensors", [](const std::string& path, const py::dict& tensors,
                                     const std::map<std::string, std::string>& metadata) {
    std::vector<std::pair<std::string, Tensor>> items;
    for (const auto& [key, value] : tensors)
      items.emplace_back(key.cast<std::string>(), value.cast<Tensor>());
    const py::gil_scoped_release release;
    save_safetensors(path, items, metadata);
  });
  module.def("_load_safetensors", [](const std::string& path) {
    SafetensorsFile file;
    {
      const py::gil_scoped_release release;
      file = load_safetensors(path);
    }
    py::dict tensors;
    for (const auto& [key, tensor] : file.tensors) tensors[py::str(key)] = to_python(tensor);
    return py::make_tuple(tensors, file.metadata);
  });
}

}  // namespace

void bind_runtime(py::module_& module) {
  py::class_<Generator>(module, "Generator", "A source of random numbers with its own seed and position.")
      .def(py::init([](const py::object& device) {
             return std::make_unique<Generator>(Generator::kDefaultSeed, device_or_cpu("Generator", device));
           }),
           py::arg("device") = "cpu")
      .def("manual_seed",
           [](const py::object& self, const py::int_& seed) {
             self.cast<Generator&>().manual_seed(seed_from(seed));
             return self;
           })
      .def("seed", &Generator::seed)
      .def("initial_seed", &Generator::initial_seed)
      .def("get_state", &get_state)
      .def("set_state", &set_state)
      .def_property_readonly("device", &Generator::device)
      .def(py::pickle([](const Generator& self) { return py::make_tuple(get_state(self), self.device()); },
                      [](const py::tuple& state) {
                        auto generator =
                            std::make_unique<Generator>(Generator::kDefaultSeed, state[1].cast<Device>());
                        set_state(*generator, state[0].cast<Tensor>());
                        return generator;
                      }));
  module.attr("default_generator") = py::cast(&default_generator(), py::return_value_policy::reference);
  module.def(
      "manual_seed", [](const py::int_& seed) { return &manual_seed(seed_from(seed)); }, py::arg("seed"),
      py::return_value_policy::reference, "Seeds the default generator and returns it.");
  module.def(
      "seed", [] { return default_generator().seed(); },
      "Seeds from the operating system; returns the seed.");
  module.def(
      "initial_seed", [] { return default_generator().initial_seed(); },
      "The seed of the default generator.");
  module.def(
      "get_rng_state", [] { return get_state(default_generator()); }, "The state of the default generator.");
  module.def(
      "set_rng_state", [](const Tensor& state) { set_state(default_generator(), state); },
      py::arg("new_state"), "Continues from a state of get_rng_state().");

  module.def("get_num_threads", &cpu::num_threads, "Threads that one call may use.");
  module.def("set_num_threads", &cpu::set_num_threads, py::arg("int"),
             "Sets how many threads one call may use.");
  module.def("get_default_dtype", &default_dtype, "The dtype of floating-point results made from numbers.");
  module.def("set_default_dtype", &set_default_dtype, py::arg("d"),
             "Sets the dtype of results made from numbers.");
  module.def("promote_types", &promote_types, py::arg("type1"), py::arg("type2"),
             "The dtype that holds both.");
  module.def("can_cast", &can_cast, py::arg("from_"), py::arg("to"),
             "Whether in-place results may be converted so.");

  module.def("memory_stats", &memory_stats, "What the memory cache holds, in bytes and counts.");
  module.def("reset_peak_memory_stats", &cpu::reset_peak_memory_stats,
             "Restarts the peaks of memory_stats().");
  module.def("empty_cache", &cpu::empty_cache, "Gives cached memory back to the system.");
  module.def("set_memory_limit", &cpu::set_memory_limit, py::arg("bytes"),
             "Limits the memory in use; 0 for no limit.");
  bind_optim(module);
  bind_files(module);
  module.def("_info", &info);
  module.attr("__version__") = OPSIN_VERSION;
}

}  // namespace opsin::python

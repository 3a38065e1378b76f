// opsin._C._cuda: what opsin.cuda is made of. Arguments are plain here; the package has PyTorch's forms.
#include "python_tensor.h"

#include <stdexcept>

#include <pybind11/stl.h>

#include <opsin/cuda.h>
#include <opsin/random.h>

#include "core/backend.h"
#include "core/backend_settings.h"

namespace opsin::python {

namespace {

/// Lets the package make NVIDIA's libraries known before the plug-in asks the loader for them.
void find_libraries() {
  if (!Py_IsInitialized()) return;
  const py::gil_scoped_acquire gil;
  try {
    py::module_::import("opsin.cuda._libraries").attr("preload")();
  } catch (py::error_already_set& error) {
    throw Error(py::str(error.value()).cast<std::string>());
  }
}

void add_stat(py::dict& result, const std::string& name, const cuda::PoolStat& stat) {
  const std::pair<const char*, const cuda::Stat*> pools[] = {
      {".all.", &stat.all}, {".small_pool.", &stat.small_pool}, {".large_pool.", &stat.large_pool}};
  for (const auto& [pool, values] : pools) {
    result[py::str(name + pool + "current")] = values->current;
    result[py::str(name + pool + "peak")] = values->peak;
    result[py::str(name + pool + "allocated")] = values->allocated;
    result[py::str(name + pool + "freed")] = values->freed;
  }
}

py::dict memory_stats(int device) {
  const cuda::MemoryStats stats = cuda::memory_stats(device);
  py::dict result;
  add_stat(result, "active", stats.active);
  add_stat(result, "active_bytes", stats.active_bytes);
  add_stat(result, "allocated_bytes", stats.allocated_bytes);
  add_stat(result, "allocation", stats.allocation);
  result["num_alloc_retries"] = stats.num_alloc_retries;
  result["num_device_alloc"] = stats.num_device_alloc;
  result["num_device_free"] = stats.num_device_free;
  result["num_ooms"] = stats.num_ooms;
  add_stat(result, "requested_bytes", stats.requested_bytes);
  add_stat(result, "reserved_bytes", stats.reserved_bytes);
  add_stat(result, "segment", stats.segment);
  return result;
}

uint64_t address(void* handle) { return reinterpret_cast<uint64_t>(handle); }

/// Waiting for a device, other Python threads go on.
using Release = py::call_guard<py::gil_scoped_release>;

void bind_devices(py::module_& module) {
  module.def("is_available", &cuda::is_available, Release());
  module.def("why_not", &cuda::why_not, Release());
  module.def("device_count", &cuda::device_count, Release());
  module.def("current_device", &cuda::current_device);
  module.def("set_device", &cuda::set_device, Release());
  module.def("synchronize", &cuda::synchronize, Release());
  module.def("is_capturing", &cuda::is_capturing, Release());

  py::class_<cuda::DeviceProperties> properties(module, "DeviceProperties");
  properties.def_readonly("name", &cuda::DeviceProperties::name)
      .def_readonly("major", &cuda::DeviceProperties::major)
      .def_readonly("minor", &cuda::DeviceProperties::minor)
      .def_readonly("total_memory", &cuda::DeviceProperties::total_memory)
      .def_readonly("multi_processor_count", &cuda::DeviceProperties::multi_processor_count)
      .def_readonly("max_threads_per_multi_processor",
                    &cuda::DeviceProperties::max_threads_per_multi_processor)
      .def_readonly("regs_per_multiprocessor", &cuda::DeviceProperties::regs_per_multiprocessor)
      .def_readonly("shared_memory_per_block", &cuda::DeviceProperties::shared_memory_per_block)
      .def_readonly("shared_memory_per_block_optin", &cuda::DeviceProperties::shared_memory_per_block_optin)
      .def_readonly("shared_memory_per_multiprocessor",
                    &cuda::DeviceProperties::shared_memory_per_multiprocessor)
      .def_readonly("L2_cache_size", &cuda::DeviceProperties::l2_cache_size)
      .def_readonly("pci_bus_id", &cuda::DeviceProperties::pci_bus_id)
      .def_readonly("pci_device_id", &cuda::DeviceProperties::pci_device_id)
      .def_readonly("is_integrated", &cuda::DeviceProperties::is_integrated)
      .def_readonly("uuid", &cuda::DeviceProperties::uuid)
      .def_readonly("driver_version", &cuda::DeviceProperties::driver_version)
      .def_readonly("runtime_version", &cuda::DeviceProperties::runtime_version)
      .def_property_readonly("warp_size", [](const cuda::DeviceProperties&) { return 32; })
      .def("__repr__", [](const cuda::DeviceProperties& p) {
        return detail::concat("DeviceProperties(name='", p.name, "', major=", p.major, ", minor=", p.minor,
                              ", total_memory=", p.total_memory >> 20,
                              "MB, multi_processor_count=", p.multi_processor_count, ")");
      });
  module.def("get_device_properties", &cuda::device_properties, py::return_value_policy::reference,
             Release());
}

void bind_streams(py::module_& module) {
  py::class_<cuda::Event> event(module, "Event");
  py::class_<cuda::Stream> stream(module, "Stream");
  event.def(py::init<bool>())
      .def(
          "record", [](cuda::Event& self) { self.record(); }, Release())
      .def(
          "record", [](cuda::Event& self, const cuda::Stream& on) { self.record(on); }, Release())
      .def("query", &cuda::Event::query, Release())
      .def("synchronize", &cuda::Event::synchronize, Release())
      .def("elapsed_time", &cuda::Event::elapsed_time, Release())
      .def("device", &cuda::Event::device)
      .def("handle", [](const cuda::Event& self) { return address(self.handle()); });
  stream.def(py::init<int, int>())
      .def_static("current", &cuda::Stream::current, Release())
      .def_static("of_default", &cuda::Stream::of_default, Release())
      .def_static("external",
                  [](uint64_t handle, int device) {
                    return cuda::Stream::external(reinterpret_cast<void*>(handle), device);
                  })
      .def("synchronize", &cuda::Stream::synchronize, Release())
      .def("query", &cuda::Stream::query, Release())
      .def("wait_event", &cuda::Stream::wait_event, Release())
      .def("wait_stream", &cuda::Stream::wait_stream, Release())
      .def("device", [](const cuda::Stream& self) { return self.device(); })
      .def("priority", &cuda::Stream::priority)
      .def("handle", [](const cuda::Stream& self) { return address(self.handle()); })
      .def("make_current", [](const cuda::Stream& self) { cuda::set_stream(self); });
}

void bind_memory(py::module_& module) {
  module.def("memory_stats", &memory_stats);
  module.def("reset_peak_memory_stats", &cuda::reset_peak_memory_stats);
  module.def("reset_accumulated_memory_stats", &cuda::reset_accumulated_memory_stats);
  module.def("empty_cache", &cuda::empty_cache, Release());
  module.def("mem_get_info", &cuda::mem_get_info, Release());
  module.def("set_per_process_memory_fraction", &cuda::set_per_process_memory_fraction, Release());
  module.def("record_stream", &cuda::record_stream);
  module.def("pin_memory", &cuda::pin_memory, Release());
  module.def("is_pinned", &cuda::is_pinned, Release());
}

void bind_settings(py::module_& module) {
  module.def("allow_tf32_matmul", &allow_tf32_matmul);
  module.def("set_allow_tf32_matmul", &set_allow_tf32_matmul);
  module.def("allow_tf32_convolution", &allow_tf32_convolution);
  module.def("set_allow_tf32_convolution", &set_allow_tf32_convolution);
  module.def("benchmark_algorithms", &benchmark_algorithms);
  module.def("set_benchmark_algorithms", &set_benchmark_algorithms);
  module.def("deterministic_algorithms", &deterministic_algorithms);
  module.def("set_deterministic_algorithms", &set_deterministic_algorithms);
  module.def("fallbacks", &fallbacks);
  module.def("clear_fallbacks", &clear_fallbacks);
  module.def("is_built", [] { return backend_state().backend != nullptr; }, Release());
  module.def(
      "cudnn_version", [] { return cuda::is_available() ? backend_state().backend->cudnn_version() : 0; },
      Release());
}

void bind_graphs(py::module_& module) {
  py::class_<cuda::Graph>(module, "Graph")
      .def(py::init<>())
      .def("capture_begin",
           [](cuda::Graph& self, uint64_t pool, const std::string& mode) {
             OPSIN_CHECK(ValueError, mode == "global" || mode == "thread_local" || mode == "relaxed",
                         "capture_begin: expected capture_error_mode 'global', 'thread_local' or 'relaxed', "
                         "got '",
                         mode, "'");
             self.capture_begin(pool, mode == "global"    ? cuda::CaptureMode::kGlobal
                                      : mode == "relaxed" ? cuda::CaptureMode::kRelaxed
                                                          : cuda::CaptureMode::kThreadLocal);
           })
      .def("capture_end", &cuda::Graph::capture_end, Release())
      .def("replay", &cuda::Graph::replay, Release())
      .def("reset", &cuda::Graph::reset, Release())
      .def("pool", &cuda::Graph::pool);
  module.def("graph_pool_handle", &cuda::graph_pool_handle);
  module.def("default_generator", &default_cuda_generator, py::return_value_policy::reference);
}

}  // namespace

void bind_cuda(py::module_& parent) {
  py::module_ module = parent.def_submodule("_cuda");
  set_plugin_hook(&find_libraries);
  bind_devices(module);
  bind_streams(module);
  bind_memory(module);
  bind_graphs(module);
  bind_settings(module);
}

}  // namespace opsin::python

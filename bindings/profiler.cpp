// The profiler for Python: what a profile recorded as lists of tuples.
#include "python_tensor.h"

#include <pybind11/stl.h>

#include <opsin/profiler.h>

namespace opsin::python {

namespace {

struct NamedScope {
  std::unique_ptr<RecordFunction> scope;
};

py::tuple stop(Profiler& profiler) {
  ProfilerResult result;
  {
    const py::gil_scoped_release release;
    result = profiler.stop();
  }
  py::list events, memory;
  for (const ProfilerEvent& event : result.events) {
    py::list shapes;
    for (const Dims& sizes : event.shapes) shapes.append(std::vector<int64_t>(sizes.begin(), sizes.end()));
    events.append(py::make_tuple(event.name, static_cast<int>(event.kind), event.thread, event.start_ns,
                                 event.duration_ns, event.parent, event.flops, event.memory_bytes, shapes));
  }
  for (const MemorySample& sample : result.memory) {
    memory.append(py::make_tuple(sample.time_ns, sample.thread, sample.change_bytes, sample.allocated_bytes));
  }
  return py::make_tuple(result.duration_ns, events, memory);
}

}  // namespace

void bind_profiler(py::module_& module) {
  py::class_<Profiler>(module, "_Profiler", "A running profile.")
      .def(py::init([](bool record_shapes, bool profile_memory, bool with_flops) {
        return std::make_unique<Profiler>(ProfilerOptions{record_shapes, profile_memory, with_flops});
      }))
      .def("stop", &stop);
  py::class_<NamedScope>(module, "_RecordFunction", "A named scope of a profile, until close().")
      .def(py::init(
          [](const std::string& name) { return NamedScope{std::make_unique<RecordFunction>(name)}; }))
      .def("close", [](NamedScope& self) { self.scope.reset(); });
}

}  // namespace opsin::python

// Which kernels there are, for the test that every device has what the CPU has.
#include "python_tensor.h"

#include <pybind11/stl.h>

#include "core/backend.h"
#include "core/kernel.h"

namespace opsin::python {

namespace {

/// (number of the slot, op, device, dtype) of every kernel, those that a plug-in brings included.
std::vector<std::tuple<int, std::string, std::string, std::string>> kernel_slots() {
  ensure_ops_registered();
  (void)backend_state();
  std::vector<std::tuple<int, std::string, std::string, std::string>> kernels;
  int number = 0;
  for (const KernelSlotBase* slot = opsin::detail::first_slot(); slot; slot = slot->next(), ++number) {
    for (const DeviceType device : {DeviceType::kCPU, DeviceType::kCUDA}) {
      for (int i = 0; i < kNumDTypes; ++i) {
        const auto dtype = static_cast<DType>(i);
        if (!slot->has(device, dtype)) continue;
        kernels.emplace_back(number, slot->op, device == DeviceType::kCPU ? "cpu" : "cuda", name(dtype));
      }
    }
  }
  return kernels;
}

}  // namespace

void bind_slots(py::module_& module) { module.def("_kernel_slots", &kernel_slots); }

}  // namespace opsin::python

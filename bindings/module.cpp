// The extension module opsin._C.
#include "python_tensor.h"

#include "cpu/isa.h"
#include "cpu/thread_pool.h"

PYBIND11_MODULE(_C, module) {
  using namespace opsin::python;
  // A bad OPSIN_ISA or OPSIN_NUM_THREADS is an error here, and not in the first op that runs.
  (void)opsin::cpu::isa();
  (void)opsin::cpu::num_threads();
  module.doc() = "The C++ engine; use it through the package opsin.";
  bind_types(module);
  bind_tensor(module);
  bind_functions(module);
  bind_autograd(module);
  bind_conversion(module);
  bind_dlpack(module);
  bind_runtime(module);
  bind_cuda(module);
  bind_profiler(module);
  bind_slots(module);
  bind_nn_module(module);
  list_public_names(module);
}

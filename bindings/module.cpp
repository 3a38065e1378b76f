// The extension module opsin._C.
#include "python_tensor.h"

PYBIND11_MODULE(_C, module) {
  using namespace opsin::python;
  module.doc() = "The C++ engine; use it through the package opsin.";
  bind_types(module);
  bind_tensor(module);
  bind_functions(module);
  bind_autograd(module);
  bind_conversion(module);
  bind_dlpack(module);
  bind_runtime(module);
  list_public_names(module);
}

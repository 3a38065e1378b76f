// Questions about whole tensors.
#include "compare_kernels.h"

#include <opsin/autograd.h>
#include <opsin/ops/binary.h>
#include <opsin/ops/compare.h>
#include <opsin/ops/copy.h>
#include <opsin/ops/reduce.h>

#include "core/dispatch.h"
#include "core/promotion.h"
#include "core/registry.h"
#include "core/same_device.h"

namespace opsin {

constinit KernelSlot<void (*)(const IsinParams&)> isin_forward("isin");

bool equal(const Tensor& self, const Tensor& other) {
  const NoGradGuard no_grad;
  if (!(self.sizes() == other.sizes())) return false;
  return all(eq(self, other)).item<bool>();
}

bool allclose(const Tensor& self, const Tensor& other, double rtol, double atol, bool equal_nan) {
  const NoGradGuard no_grad;
  return all(isclose(self, other, rtol, atol, equal_nan)).item<bool>();
}

Tensor isin(const Tensor& elements, const Tensor& test_elements, bool, bool invert) {
  const DType dtype = result_type({&elements, &test_elements});
  if (is_complex(dtype)) detail::raise_unsupported("isin", dtype);
  const Device device = elements.device().is_cpu() ? test_elements.device() : elements.device();
  // Numbers go with every device.
  const auto prepared = [&](const Tensor& x) {
    const Tensor values = to(x.detach(), dtype);
    return contiguous(x.dim() == 0 ? to(values, device) : values);
  };
  const Tensor values = prepared(elements), wanted = prepared(test_elements);
  check_same_device("isin", values, wanted);
  const Tensor y = empty(elements.sizes(), kBool, values.device());
  isin_forward.get(values.device(), dtype)({values.impl()->data(), wanted.impl()->data(), dtype,
                                            values.numel(), wanted.numel(), invert, y.mutable_data<bool>()});
  return y;
}

void register_compare(Registry& registry) {
  register_compare_cpu();
  registry.add<&equal>("equal(Tensor self, Tensor other) -> bool",
                       "Whether both have the same shape and values.");
  registry.add<&allclose>(
      "allclose(Tensor self, Tensor other, float rtol=1e-05, float atol=1e-08, bool equal_nan=False) -> bool",
      "Whether |self - other| <= atol + rtol * |other| everywhere.");
  registry.add<&isin>(
      "isin(Operand elements, Operand test_elements, *, bool assume_unique=False, bool invert=False) -> "
      "Tensor",
      "For each element, whether `test_elements` holds it.");
}

}  // namespace opsin

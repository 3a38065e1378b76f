// Questions about whole tensors.
#include <algorithm>
#include <vector>

#include <opsin/autograd.h>
#include <opsin/ops/binary.h>
#include <opsin/ops/compare.h>
#include <opsin/ops/copy.h>
#include <opsin/ops/reduce.h>

#include "core/dispatch.h"
#include "core/promotion.h"
#include "core/registry.h"

namespace opsin {

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
  const Tensor values = contiguous(to(elements.detach(), dtype));
  const Tensor wanted = contiguous(to(test_elements.detach(), dtype));
  const Tensor y = empty(elements.sizes(), kBool);
  bool* found = y.mutable_data<bool>();
  dispatch_real(dtype, "isin", [&]<class T>() {
    using C = compute_t<T>;
    const T* from = wanted.data<T>();
    std::vector<C> sorted;
    for (int64_t i = 0; i < wanted.numel(); ++i) {
      const C value = static_cast<C>(from[i]);
      // NaN equals nothing, and would break the order.
      if (value == value) sorted.push_back(value);
    }
    std::sort(sorted.begin(), sorted.end());
    const T* x = values.data<T>();
    for (int64_t i = 0; i < values.numel(); ++i) {
      found[i] = std::binary_search(sorted.begin(), sorted.end(), static_cast<C>(x[i])) != invert;
    }
  });
  return y;
}

void register_compare(Registry& registry) {
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

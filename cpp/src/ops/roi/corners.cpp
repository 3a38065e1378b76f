#include "corners.h"

#include <opsin/ops/binary.h>
#include <opsin/ops/creation.h>
#include <opsin/ops/index.h>
#include <opsin/ops/reduce.h>
#include <opsin/ops/unary.h>
#include <opsin/ops/view.h>

namespace opsin {

namespace {
constexpr size_t kAll = SIZE_MAX;
}

/// The weight of a corner, without the factor of axis `without`. Undefined for 1.
Tensor Corners::weight(size_t corner, size_t without) const {
  Tensor product = shares.empty() ? Tensor() : shares[corner];
  for (size_t a = 0; a < fractions.size(); ++a) {
    if (a == without) continue;
    const Tensor factor = corner >> a & 1 ? fractions[a] : rsub(fractions[a], wrap_number(1.0));
    product = product.defined() ? product * factor : factor;
  }
  return product;
}

Tensor Corners::of(const Tensor& x) const {
  Tensor sum;
  for (size_t i = 0; i < rows.size(); ++i) {
    const Tensor part = index_select(x, 0, rows[i]) * unsqueeze(weight(i, kAll), 1);
    sum = sum.defined() ? sum + part : part;
  }
  return sum;
}

Tensor Corners::spread(const Tensor& g, int64_t size) const {
  Tensor sum = zeros(Dims{size, g.size(1)}, g.dtype(), g.device());
  for (size_t i = 0; i < rows.size(); ++i) {
    sum = index_add(sum, 0, rows[i], g * unsqueeze(weight(i, kAll), 1));
  }
  return sum;
}

std::vector<Tensor> Corners::slopes(const Tensor& x, const Tensor& g) const {
  std::vector<Tensor> found(fractions.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    const Tensor product = sum(index_select(x, 0, rows[i]) * g, Dims{1});
    for (size_t a = 0; a < found.size(); ++a) {
      const Tensor rest = weight(i, a);
      const Tensor part = rest.defined() ? product * rest : product;
      const Tensor turned = i >> a & 1 ? part : neg(part);
      found[a] = found[a].defined() ? found[a] + turned : turned;
    }
  }
  return found;
}

}  // namespace opsin

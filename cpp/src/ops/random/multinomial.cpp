// Sampling of category numbers.
#include "random.h"
#include "random_kernels.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include <opsin/ops/binary.h>
#include <opsin/ops/copy.h>
#include <opsin/ops/random.h>
#include <opsin/ops/reduce.h>
#include <opsin/ops/scan.h>
#include <opsin/ops/sort.h>
#include <opsin/ops/unary.h>
#include <opsin/ops/view.h>

#include "core/registry.h"

namespace opsin {

constinit KernelSlot<void (*)(const ChooseParams&)> multinomial_choose("multinomial");

namespace {

/// Checks the weights of a row and returns their sum; `cumulative` gets the running ones unless it is null.
double sum_row(const double* w, int64_t n, int64_t row, int64_t samples, bool replacement,
               double* cumulative) {
  double total = 0;
  int64_t positive = 0;
  for (int64_t i = 0; i < n; ++i) {
    OPSIN_CHECK(Error, w[i] >= 0 && std::isfinite(w[i]),
                "multinomial: probability tensor contains either `inf`, `nan` or element < 0, got ", w[i],
                " in row ", row);
    total += w[i];
    if (cumulative) cumulative[i] = total;
    positive += w[i] > 0;
  }
  OPSIN_CHECK(Error, total > 0 && (replacement || positive >= samples),
              "multinomial: invalid multinomial distribution (sum of probabilities ", total, ", ", positive,
              " positive ones, ", samples, " samples) in row ", row);
  return total;
}

/// Weights [rows, n] and, for each sample or without replacement for each weight, a number of [0, 1).
Tensor choose_on_cpu(const Tensor& weights, const Tensor& draws, int64_t samples, bool replacement) {
  const int64_t rows = weights.size(0), n = weights.size(1);
  const Tensor y = empty({rows, samples}, kInt64);
  const double *w = weights.data<double>(), *u = draws.data<double>();
  int64_t* out = y.mutable_data<int64_t>();
  std::vector<double> cumulative(static_cast<size_t>(n));
  std::vector<std::pair<double, int64_t>> keys(static_cast<size_t>(n));
  for (int64_t row = 0; row < rows; ++row, w += n, u += draws.size(1), out += samples) {
    const double total = sum_row(w, n, row, samples, replacement, cumulative.data());
    if (replacement) {
      for (int64_t s = 0; s < samples; ++s) {
        auto found = std::upper_bound(cumulative.begin(), cumulative.end(), u[s] * total);
        if (found == cumulative.end()) --found;
        out[s] = found - cumulative.begin();
      }
      continue;
    }
    // The smallest of exponential waiting times with these rates are a sample without replacement.
    for (int64_t i = 0; i < n; ++i) {
      const double wait = w[i] > 0 ? -std::log1p(-u[i]) / w[i] : std::numeric_limits<double>::infinity();
      keys[static_cast<size_t>(i)] = {wait, i};
    }
    std::partial_sort(keys.begin(), keys.begin() + samples, keys.end());
    for (int64_t s = 0; s < samples; ++s) out[s] = keys[static_cast<size_t>(s)].second;
  }
  return y;
}

/// The same by whole tensors, with one question to the device.
Tensor choose_on_gpu(const Tensor& weights, const Tensor& draws, int64_t samples, bool replacement) {
  const int64_t rows = weights.size(0), n = weights.size(1);
  const Tensor zero = wrap_number(0.0);
  const Tensor positive = sum(gt(weights, zero), Dims{1});
  const Tensor is_valid =
      logical_and(all(logical_and(isfinite(weights), ge(weights, zero))),
                  all(ge(positive, wrap_number(Scalar(replacement ? int64_t{1} : samples)))));
  if (!is_valid.item<bool>()) {
    // Says what is wrong.
    const Tensor known = to(weights, kCPU);
    for (int64_t row = 0; row < rows; ++row)
      sum_row(known.data<double>() + row * n, n, row, samples, replacement, nullptr);
  }
  if (!replacement) return topk(div(neg(log1p(neg(draws))), weights), samples, 1, false)[1];
  const Tensor cumulative = cumsum(weights, 1);
  const Tensor y = empty({rows, samples}, kInt64, weights.device());
  multinomial_choose.get(y.device(), kFloat64)(
      {cumulative.data<double>(), draws.data<double>(), y.mutable_data<int64_t>(), rows, n, samples});
  return y;
}

/// `num_samples` column numbers for each row of probabilities [n] or [rows, n].
Tensor multinomial(const Tensor& self, int64_t num_samples, bool replacement, Generator* generator) {
  OPSIN_CHECK(ShapeError, self.dim() == 1 || self.dim() == 2,
              "multinomial: expected probabilities [n] or [rows, n], got ", str(self.sizes()));
  OPSIN_CHECK(Error, is_floating_point(self.dtype()),
              "multinomial: expects floating-point probabilities, got ", name(self.dtype()));
  const int64_t n = self.size(-1), rows = self.dim() == 2 ? self.sizes()[0] : 1;
  OPSIN_CHECK(Error, num_samples > 0, "multinomial: cannot sample num_samples <= 0 samples, got ",
              num_samples);
  OPSIN_CHECK(Error, replacement || num_samples <= n, "multinomial: cannot sample num_samples ", num_samples,
              " > ", n, " categories without replacement");
  const Tensor weights = view(contiguous(to(self.detach(), kFloat64)), Dims{rows, n});
  const Tensor draws = rand(Dims{rows, replacement ? num_samples : n}, kFloat64, generator, self.device());
  const Tensor y = self.device().is_cpu() ? choose_on_cpu(weights, draws, num_samples, replacement)
                                          : choose_on_gpu(weights, draws, num_samples, replacement);
  return self.dim() == 2 ? y : select(y, 0, 0);
}

}  // namespace

void register_multinomial(Registry& registry) {
  registry.add<&multinomial>(
      "multinomial(Tensor self, int num_samples, bool replacement=False, *, Generator? generator=None) -> "
      "Tensor",
      "`num_samples` column numbers for each row of weights [n] or [rows, n].");
}

}  // namespace opsin

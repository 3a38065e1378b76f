// Where a tensor is not zero, and the reverse: one-hot rows.
#include "rows.h"

#include <opsin/ops/copy.h>
#include <opsin/ops/creation.h>
#include <opsin/ops/index.h>
#include <opsin/ops/view.h>

#include "core/call.h"
#include "core/registry.h"

namespace opsin {

Tensor flat_nonzero(const Tensor& x) {
  const Tensor mask = contiguous(to(x.detach(), kBool));
  const bool* bits = mask.data<bool>();
  int64_t count = 0;
  for (int64_t i = 0; i < mask.numel(); ++i) count += bits[i];
  const Tensor result = empty(Dims{count}, kInt64, x.device());
  auto* out = result.mutable_data<int64_t>();
  for (int64_t i = 0; i < mask.numel(); ++i) {
    if (bits[i]) *out++ = i;
  }
  return result;
}

Tensor nonzero(const Tensor& self) {
  const Tensor flat = flat_nonzero(self);
  const int64_t rank = self.dim();
  const Tensor result = empty(Dims{flat.numel(), rank}, kInt64, self.device());
  const auto* from = flat.data<int64_t>();
  auto* out = result.mutable_data<int64_t>();
  for (int64_t i = 0; i < flat.numel(); ++i) {
    int64_t rest = from[i];
    for (int64_t d = rank; d-- > 0;) {
      const int64_t size = self.sizes()[static_cast<size_t>(d)];
      out[i * rank + d] = rest % size;
      rest /= size;
    }
  }
  return result;
}

Tensor one_hot(const Tensor& self, int64_t num_classes) {
  OPSIN_CHECK(Error, self.dtype() == kInt64, "one_hot: expected an int64 tensor of classes, got ",
              name(self.dtype()));
  const Tensor classes = contiguous(self.detach());
  const auto* at = classes.data<int64_t>();
  int64_t largest = -1;
  for (int64_t i = 0; i < classes.numel(); ++i) {
    OPSIN_CHECK(Error, at[i] >= 0, "one_hot: class values must be non-negative, got ", at[i]);
    largest = std::max(largest, at[i]);
  }
  OPSIN_CHECK(Error, num_classes > 0 || (num_classes == -1 && classes.numel() > 0),
              "one_hot: can not infer total number of classes from an empty tensor and num_classes must be "
              "positive, got ",
              num_classes);
  OPSIN_CHECK(Error, num_classes == -1 || largest < num_classes,
              "one_hot: class values must be smaller than num_classes, got ", largest, " with ", num_classes,
              " classes");
  const int64_t width = num_classes == -1 ? largest + 1 : num_classes;
  Dims sizes = self.sizes();
  sizes.push_back(width);
  const Tensor result = zeros(sizes, kInt64, self.device());
  auto* out = result.mutable_data<int64_t>();
  for (int64_t i = 0; i < classes.numel(); ++i) out[i * width + at[i]] = 1;
  return result;
}

/// For the one function whose argument decides what comes back.
static void box(Value& result, Value value) { result = std::move(value); }

namespace {

TensorList nonzero_columns(const Tensor& self) {
  // A 0-d tensor counts as one of one element here.
  const Tensor positions = nonzero(self.dim() == 0 ? unsqueeze(self, 0) : self);
  TensorList columns;
  for (int64_t d = 0; d < positions.size(1); ++d) columns.push_back(select(positions, 1, d));
  return columns;
}

Value nonzero_schema(const Tensor& self, bool as_tuple) {
  if (as_tuple) return nonzero_columns(self);
  return nonzero(self);
}

}  // namespace

void register_index_nonzero(Registry& registry) {
  registry.add<&nonzero_schema>(
      "nonzero(Tensor self, *, bool as_tuple=False) -> Tensor[]|Tensor",
      "The indices of the nonzero elements in row-major order, int64 [count, rank]; with as_tuple one tensor "
      "for each dimension.");
  registry.add<&nonzero>("argwhere(Tensor self) -> Tensor",
                         "The indices of the nonzero elements in row-major order, int64 [count, rank].");
  registry.add<&nonzero_columns>("where(Tensor condition) -> Tensor[]",
                                 "The indices where `condition` is nonzero, one tensor for each dimension.");
  registry.add<&one_hot>(
      "nn.functional.one_hot(Tensor tensor, int num_classes=-1) -> Tensor",
      "int64 [..., num_classes] with a 1 at each class of `tensor` [...]; -1 takes as many as needed.");
}

}  // namespace opsin

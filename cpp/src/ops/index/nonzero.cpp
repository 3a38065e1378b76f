// Where a tensor is not zero, and the reverse: one-hot rows.
#include "index_kernels.h"

#include <opsin/ops/copy.h>
#include <opsin/ops/creation.h>
#include <opsin/ops/index.h>
#include <opsin/ops/reduce.h>
#include <opsin/ops/view.h>

#include "core/call.h"
#include "core/registry.h"

namespace opsin {

constinit KernelSlot<NonzeroFn> nonzero_count("nonzero"), nonzero_write("nonzero"),
    nonzero_unravel("nonzero");

Tensor flat_nonzero(const Tensor& x) {
  const Tensor mask = contiguous(to(x.detach(), kBool));
  const Device device = x.device();
  NonzeroParams p{};
  p.mask = mask.data<bool>();
  p.n = mask.numel();
  p.tile = std::max<int64_t>(p.n, 1);
  int64_t counts[2] = {};
  Tensor device_counts;
  if (device.is_cpu()) {
    p.counts = counts;
    nonzero_count.get(device, kBool)(p);
  } else if (p.n > 0) {
    p.tile = NonzeroParams::kDeviceTile;
    const int64_t tiles = (p.n - 1) / p.tile + 1;
    device_counts = empty(Dims{tiles + 1}, kInt64, device);
    p.counts = device_counts.mutable_data<int64_t>();
    nonzero_count.get(device, kBool)(p);
    counts[1] = select(device_counts, 0, tiles).item<int64_t>();
  }
  p.count = counts[1];
  const Tensor result = empty(Dims{p.count}, kInt64, device);
  p.positions = result.mutable_data<int64_t>();
  if (p.count > 0) nonzero_write.get(device, kBool)(p);
  return result;
}

Tensor nonzero(const Tensor& self) {
  const Tensor flat = flat_nonzero(self);
  NonzeroParams p{};
  OPSIN_CHECK(ShapeError, self.dim() <= NonzeroParams::kMaxRank, "nonzero: expected at most ",
              NonzeroParams::kMaxRank, " dimensions, got ", self.dim());
  p.rank = static_cast<int>(self.dim());
  std::copy(self.sizes().begin(), self.sizes().end(), p.sizes);
  p.count = flat.numel();
  if (p.rank == 1) return view(flat, Dims{p.count, 1});
  const Tensor result = empty(Dims{p.count, self.dim()}, kInt64, self.device());
  p.flat = flat.data<int64_t>();
  p.positions = result.mutable_data<int64_t>();
  if (result.numel() > 0) nonzero_unravel.get(self.device(), kInt64)(p);
  return result;
}

namespace {

/// What a GPU does: classes are checked as they are written, and nothing waits unless their number is asked
/// for.
Tensor one_hot_on_device(const Tensor& classes, int64_t num_classes) {
  const int64_t width = num_classes == -1 ? amax(classes).item<int64_t>() + 1 : num_classes;
  Dims sizes = classes.sizes();
  sizes.push_back(width);
  const Tensor at = unsqueeze(classes, -1);
  return scatter_along_(zeros(sizes, kInt64, classes.device()), at,
                        expand(full(IntSpan{}, 1, kInt64, classes.device()), at.sizes()),
                        {classes.numel(), width, 1, 1, "one_hot"}, /*accumulate=*/false);
}

}  // namespace

Tensor one_hot(const Tensor& self, int64_t num_classes) {
  OPSIN_CHECK(Error, self.dtype() == kInt64, "one_hot: expected an int64 tensor of classes, got ",
              name(self.dtype()));
  const Tensor classes = contiguous(self.detach());
  if (!self.device().is_cpu() && (num_classes > 0 || (num_classes == -1 && classes.numel() > 0)))
    return one_hot_on_device(classes, num_classes);
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

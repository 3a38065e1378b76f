// Reading and writing where a mask is true.
#include "ops/where/where_kernels.h"
#include "rows.h"

#include <opsin/ops/binary.h>
#include <opsin/ops/copy.h>
#include <opsin/ops/index.h>
#include <opsin/ops/reduce.h>
#include <opsin/ops/view.h>

#include "core/call.h"
#include "core/elementwise.h"
#include "core/registry.h"
#include "ops/view/overlap.h"

namespace opsin {

namespace {

// y = mask ? value : x, so dx = mask ? 0 : dy and dvalue = sum of dy where the mask is true (summed by the
// engine).
struct MaskedFill {
  static constexpr const char* kName = "masked_fill";
  struct Params {};
  static void forward_into(Tensor& y, const Params&, const Tensor& x, const Tensor& mask,
                           const Tensor& value) {
    const DType dtype = x.dtype();
    Elementwise plan(kName, y, dtype);
    plan.input(mask, kBool);
    plan.input(value, dtype);
    plan.input(x, dtype);
    plan.build();
    plan.run(where_forward.get(plan.device(), dtype));
  }
  static void save(Saver& saver, const Params&, const Tensor&, const Tensor& mask, const Tensor&,
                   const Tensor&) {
    saver.save(0, mask);
  }
  static void backward(Backward& ctx, const Params&) {
    const Tensor mask = ctx.saved(0);
    const Tensor zero = wrap_number(0, ctx.grad().dtype());
    if (ctx.needs(0)) ctx.set(0, where(mask, zero, ctx.grad()));
    if (ctx.needs(2)) ctx.set(2, where(mask, ctx.grad(), zero));
  }
};

void check_mask(const Tensor& mask, const char* op) {
  OPSIN_CHECK(Error, mask.dtype() == kBool, op, ": expected a mask of dtype bool, got ", name(mask.dtype()));
}

void check_fill(const Tensor& mask, const Tensor& value) {
  check_mask(mask, "masked_fill");
  OPSIN_CHECK(Error, value.dim() == 0, "masked_fill: only supports a 0-dimensional value tensor, got ",
              value.dim(), " dimension(s)");
}

}  // namespace

Tensor masked_fill(const Tensor& self, const Tensor& mask, const Tensor& value) {
  check_fill(mask, value);
  return call<MaskedFill>({}, self, mask, value);
}

Tensor masked_fill_(const Tensor& self, const Tensor& mask, const Tensor& value) {
  check_fill(mask, value);
  Dims repeated;
  for (size_t d = 0; d < self.sizes().size(); ++d) {
    if (repeats(self, d)) repeated.push_back(static_cast<int64_t>(d));
  }
  if (repeated.empty()) return call_inplace<MaskedFill>({}, self, mask, value);
  // A place in memory is filled if the mask is true for any of the elements there.
  const Tensor places = any(expand(mask, self.sizes()), repeated, /*keepdim=*/true);
  call_inplace<MaskedFill>({}, without_repeats(self), places, value);
  return self;
}

Tensor masked_select(const Tensor& self, const Tensor& mask) {
  check_mask(mask, "masked_select");
  const Dims shape = broadcast_shapes(mask.sizes(), self.sizes(), "masked_select");
  const Tensor rows = flat_nonzero(expand(mask, shape));
  return select_rows(expand(self, shape), rows,
                     {1, count_elements(shape), rows.numel(), 1, nullptr, false, /*ascends=*/true},
                     rows.sizes());
}

Tensor masked_scatter_(const Tensor& self, const Tensor& mask, const Tensor& source) {
  check_mask(mask, "masked_scatter_");
  OPSIN_CHECK(Error, self.dtype() == source.dtype(),
              "masked_scatter_: expected self and source to have same dtypes but got ", name(self.dtype()),
              " and ", name(source.dtype()));
  const Tensor rows = flat_nonzero(expand(mask, self.sizes()));
  const int64_t count = rows.numel();
  OPSIN_CHECK(Error, count <= source.numel(), "masked_scatter_: number of elements of source (",
              source.numel(), ") < number of ones in mask (", count, ")");
  const Tensor values = slice(reshape(source, Dims{-1}), 0, 0, count);
  return put_rows_(self, rows, values, {1, self.numel(), count, 1, nullptr, false, /*ascends=*/true},
                   /*accumulate=*/false);
}

Tensor masked_scatter(const Tensor& self, const Tensor& mask, const Tensor& source) {
  const Dims shape = broadcast_shapes(mask.sizes(), self.sizes(), "masked_scatter");
  return masked_scatter_(clone(expand(self, shape)), mask, source);
}

void register_index_masked(Registry& registry) {
  registry.add<&masked_fill>("masked_fill(Tensor self, Tensor mask, Operand value) -> Tensor",
                             "`value` (0-d) where `mask` is true, `self` elsewhere; both broadcast.");
  registry.add<&masked_fill_>("Tensor.masked_fill_(Tensor self, Tensor mask, Operand value) -> Tensor",
                              "In-place version of masked_fill.");
  registry.add<&masked_select>("masked_select(Tensor self, Tensor mask) -> Tensor",
                               "The elements [count] where `mask` is true; both broadcast.");
  registry.add<&masked_scatter>("masked_scatter(Tensor self, Tensor mask, Tensor source) -> Tensor",
                                "`self` with the first elements of `source` in order where `mask` is true.");
  registry.add<&masked_scatter_>("Tensor.masked_scatter_(Tensor self, Tensor mask, Tensor source) -> Tensor",
                                 "In-place version of masked_scatter.");
}

}  // namespace opsin

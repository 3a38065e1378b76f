// Element by element choice between two tensors.
#include "where_kernels.h"

#include <bit>

#include <opsin/ops/binary.h>

#include "core/call.h"
#include "core/promotion.h"
#include "core/registry.h"

namespace opsin {

constinit ElementwiseSlot where_forward("where");

namespace {

// y = c ? a : b, so da = c ? dy : 0 and db = c ? 0 : dy.
struct Where {
  static constexpr const char* kName = "where";
  struct Params {};
  static Tensor forward(const Params&, const Tensor& condition, const Tensor& a, const Tensor& b) {
    OPSIN_CHECK(Error, condition.dtype() == kBool || condition.dtype() == kUInt8,
                "where: expected condition to be a boolean tensor, got ", name(condition.dtype()));
    const DType dtype = result_type({&a, &b});
    Tensor y;
    Elementwise plan(kName, y, dtype);
    plan.input(condition, kBool);
    plan.input(a, dtype);
    plan.input(b, dtype);
    plan.build();
    plan.run(where_forward.get(plan.device(), dtype));
    return y;
  }
  static void save(Saver& saver, const Params&, const Tensor& condition, const Tensor&, const Tensor&,
                   const Tensor&) {
    saver.save(0, condition);
  }
  static void backward(Backward& ctx, const Params&) {
    const Tensor condition = ctx.saved(0);
    const Tensor zero = wrap_number(0, ctx.grad().dtype());
    if (ctx.needs(1)) ctx.set(1, where(condition, ctx.grad(), zero));
    if (ctx.needs(2)) ctx.set(2, where(condition, zero, ctx.grad()));
  }
};

}  // namespace

Tensor where(const Tensor& condition, const Tensor& self, const Tensor& other) {
  return call<Where>({}, condition, self, other);
}

namespace {
Tensor where_method(const Tensor& self, const Tensor& condition, const Tensor& other) {
  return where(condition, self, other);
}
}  // namespace

void register_where(Registry& registry) {
  for (int i = 0; i < kNumDTypes; ++i) {
    const auto dtype = static_cast<DType>(i);
    where_forward.set(DeviceType::kCPU, dtype,
                      OPSIN_ISA_SELECT(cpu::where_table).loop[std::countr_zero(item_size(dtype))]);
  }
  registry.add<&where>("where(Tensor condition, Operand input, Operand other) -> Tensor",
                       "`input` where condition is true, `other` elsewhere; all three broadcast.");
  registry.add<&where_method>("Tensor.where(Tensor self, Tensor condition, Operand other) -> Tensor",
                              "`self` where condition is true, `other` elsewhere.");
}

}  // namespace opsin

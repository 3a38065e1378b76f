// The public functions of three tensors and their schemas.
#include "binary_call.h"

#include <limits>

#include <opsin/ops/binary.h>

#include "../unary/unary_call.h"
#include "core/call.h"
#include "core/registry.h"

namespace opsin {

namespace {

bool is_number(const Tensor& bound) { return !bound.defined() || bound.impl()->wrapped_number; }

Tensor clamp_by(const Tensor& self, const Tensor& min, const Tensor& max, bool inplace) {
  OPSIN_CHECK(Error, min.defined() || max.defined(),
              "clamp: At least one of 'min' or 'max' must not be None");
  if (is_floating_point(self.dtype()) && is_number(min) && is_number(max)) {
    constexpr double kInfinity = std::numeric_limits<double>::infinity();
    const UnaryArgs bounds{min.defined() ? min.scalar().to_double() : -kInfinity,
                           max.defined() ? max.scalar().to_double() : kInfinity};
    return unary::apply(UnaryOp::Clamp, self, bounds, inplace);
  }
  if (min.defined() && max.defined()) {
    return inplace ? ternary::apply_(TernaryOp::Clamp, self, min, max, 0)
                   : ternary::apply(TernaryOp::Clamp, self, min, max, 0);
  }
  const BinaryOp op = min.defined() ? BinaryOp::ClampMin : BinaryOp::ClampMax;
  const Tensor& bound = min.defined() ? min : max;
  return inplace ? binary::apply_(op, self, bound) : binary::apply(op, self, bound);
}

void check_lerp(const Tensor& self, const Tensor& end) {
  OPSIN_CHECK(Error, self.dtype() == end.dtype(), "lerp: expected dtype ", name(self.dtype()),
              " for `end` but got dtype ", name(end.dtype()));
}
void check_addcdiv(const Tensor& a, const Tensor& b) {
  OPSIN_CHECK(
      Error, is_differentiable(a.dtype()) || is_differentiable(b.dtype()),
      "addcdiv: Integer division with addcdiv is no longer supported (convert to floating point first)");
}

}  // namespace

Tensor clamp(const Tensor& self, const Tensor& min, const Tensor& max) {
  return clamp_by(self, min, max, false);
}
Tensor clamp_(const Tensor& self, const Tensor& min, const Tensor& max) {
  return clamp_by(self, min, max, true);
}
Tensor clamp_min(const Tensor& self, const Tensor& min) { return clamp_by(self, min, {}, false); }
Tensor clamp_min_(const Tensor& self, const Tensor& min) { return clamp_by(self, min, {}, true); }
Tensor clamp_max(const Tensor& self, const Tensor& max) { return clamp_by(self, {}, max, false); }
Tensor clamp_max_(const Tensor& self, const Tensor& max) { return clamp_by(self, {}, max, true); }

Tensor lerp(const Tensor& self, const Tensor& end, const Tensor& weight) {
  check_lerp(self, end);
  return ternary::apply(TernaryOp::Lerp, self, end, weight, 0);
}
Tensor lerp_(const Tensor& self, const Tensor& end, const Tensor& weight) {
  check_lerp(self, end);
  return ternary::apply_(TernaryOp::Lerp, self, end, weight, 0);
}
Tensor addcmul(const Tensor& self, const Tensor& tensor1, const Tensor& tensor2, const Scalar& value) {
  if (autocast::is_on(DeviceType::kCUDA, self))
    return autocast::call<autocast::kWidest>(addcmul, self, tensor1, tensor2, value);
  return ternary::apply(TernaryOp::Addcmul, self, tensor1, tensor2, value);
}
Tensor addcmul_(const Tensor& self, const Tensor& tensor1, const Tensor& tensor2, const Scalar& value) {
  return ternary::apply_(TernaryOp::Addcmul, self, tensor1, tensor2, value);
}
Tensor addcdiv(const Tensor& self, const Tensor& tensor1, const Tensor& tensor2, const Scalar& value) {
  if (autocast::is_on(DeviceType::kCUDA, self))
    return autocast::call<autocast::kWidest>(addcdiv, self, tensor1, tensor2, value);
  check_addcdiv(tensor1, tensor2);
  return ternary::apply(TernaryOp::Addcdiv, self, tensor1, tensor2, value);
}
Tensor addcdiv_(const Tensor& self, const Tensor& tensor1, const Tensor& tensor2, const Scalar& value) {
  check_addcdiv(tensor1, tensor2);
  return ternary::apply_(TernaryOp::Addcdiv, self, tensor1, tensor2, value);
}

void register_ternary(Registry& registry);

void register_ternary(Registry& registry) {
#define OPSIN_ADD(name, function, arguments, doc)                                      \
  registry.add<&function>(name "(Tensor self, " arguments ") -> Tensor", doc);         \
  registry.add<&function##_>("Tensor." name "_(Tensor self, " arguments ") -> Tensor", \
                             "In-place version of " name ".");
  OPSIN_ADD("clamp", clamp, "Operand? min=None, Operand? max=None",
            "self kept in [min, max]; max wins if they cross.")
  OPSIN_ADD("clip", clamp, "Operand? min=None, Operand? max=None", "The same as clamp.")
  OPSIN_ADD("clamp_min", clamp_min, "Operand min", "The larger of self and min.")
  OPSIN_ADD("clamp_max", clamp_max, "Operand max", "The smaller of self and max.")
  OPSIN_ADD("lerp", lerp, "Tensor end, Operand weight", "self + weight * (end - self).")
  OPSIN_ADD("addcmul", addcmul, "Tensor tensor1, Tensor tensor2, *, Number value=1",
            "self + value * tensor1 * tensor2.")
  OPSIN_ADD("addcdiv", addcdiv, "Tensor tensor1, Tensor tensor2, *, Number value=1",
            "self + value * tensor1 / tensor2.")
#undef OPSIN_ADD
}

}  // namespace opsin

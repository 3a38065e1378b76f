#include "normalised.h"

#include "autograd/history.h"

namespace opsin {

constinit KernelSlot<void (*)(const NormalisedParams&)> batch_norm_apply{"batch_norm"};

namespace {

Tensor compute(const Tail& tail, bool free, const Tail*) {
  const Tensor& x = tail.base;
  const Tensor y = free                    ? x
                   : x.impl()->is_hidden() ? empty_channels_last(x.sizes(), x.dtype(), x.device())
                                           : empty(x.sizes(), x.dtype(), x.device());
  batch_norm_apply.get(x.device(), x.dtype())(
      {shape_of(x), x.impl()->physical_data(), tail.numbers.impl()->data(),
       tail.other.defined() ? tail.other.impl()->physical_data() : nullptr, tail.ceiling,
       // Without the door for writing: it would compute this tail.
       const_cast<char*>(y.impl()->physical_data())});
  return y;
}

/// Puts the tail of `of`, changed to `tail`, where the result belongs.
bool join(Tensor& y, const Tensor& of, const Tail& tail) {
  if (y.defined()) return y.is_same(of) && Tails::replace(y, tail);
  y = Tails::leave(tail, of);
  return y.defined();
}

}  // namespace

ChannelShape shape_of(const Tensor& x) {
  int64_t inner = 1;
  for (int64_t d = 2; d < x.dim(); ++d) inner *= x.size(d);
  return {x.size(0), x.size(1), inner, x.impl()->is_hidden() || inner == 1, x.dtype()};
}

Tensor leave_normalised(const Tensor& x, const Tensor& numbers) {
  const Tail tail{Tail::Kind::kNormalised, 0, alias_without_history(x), {}, numbers, &compute, {}};
  const Tensor y = Tails::leave(tail, x);
  return y.defined() ? y : compute(tail, false, nullptr);
}

bool join_relu(Tensor& y, const Tensor& x, double ceiling) {
  std::optional<Tail> tail = Tails::peek(x, Tail::Kind::kNormalised);
  if (!tail || tail->ceiling > 0) return false;
  tail->ceiling = ceiling;
  const bool in_place = y.defined();
  if (!join(y, x, *tail)) return false;
  // An op in place counts the version when it is done.
  if (!tail->other.defined()) Tails::set_origin(y, tail->numbers, y.version() + (in_place ? 1 : 0));
  return true;
}

bool join_add(Tensor& y, const Tensor& a, const Tensor& b) {
  if (!(a.sizes() == b.sizes()) || a.dtype() != b.dtype() || !(a.device() == b.device())) return false;
  for (const bool swapped : {false, true}) {
    const Tensor& of = swapped ? b : a;
    const Tensor& other = swapped ? a : b;
    std::optional<Tail> tail = Tails::peek(of, Tail::Kind::kNormalised);
    if (!tail || tail->ceiling > 0 || tail->other.defined()) continue;
    tail->other = alias_without_history(other);
    if (other.impl()->storage == of.impl()->storage) continue;
    return join(y, of, *tail);
  }
  return false;
}

std::optional<Tail> masked_gradient(const Tensor& gradient, const Tensor& x) {
  std::optional<Tail> tail = Tails::peek(gradient, Tail::Kind::kMasked);
  if (tail &&
      (!(tail->base.sizes() == x.sizes()) || tail->base.impl()->is_hidden() != x.impl()->is_hidden())) {
    tail.reset();
  }
  return tail;
}

bool is_mask_of(const Tail& masked, const Tensor& x, const Tensor& numbers) {
  return !x.impl()->storage->escaped && Tails::has_origin(masked.other, numbers);
}

}  // namespace opsin

// The parts of the reduce family register their schemas apart.
#pragma once

#include "core/registry.h"

namespace opsin {

void register_extremum(Registry& registry);
void register_statistics(Registry& registry);

/// `with_dims<&f>` is f with an optional list of dimensions: none means all.
template <class F>
struct OptionalDims;
template <class R, class... Rest>
struct OptionalDims<R (*)(const Tensor&, IntSpan, Rest...)> {
  template <auto kFunction>
  static R call(const Tensor& self, std::optional<IntSpan> dim, Rest... rest) {
    return kFunction(self, dim.value_or(IntSpan{}), rest...);
  }
};
template <auto kFunction>
inline constexpr auto with_dims = &OptionalDims<decltype(kFunction)>::template call<kFunction>;

}  // namespace opsin

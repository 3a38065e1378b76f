// How a loss is reduced: the `reduction` argument of PyTorch's losses.
#pragma once

#include <string_view>

#include <opsin/tensor.h>

namespace opsin {

enum class Reduction { kNone, kMean, kSum };

/// "none", "mean" or "sum"; ValueError otherwise.
Reduction parse_reduction(std::string_view text, const char* op);
/// PyTorch's deprecated pair of flags wins over `reduction` where one of them is given.
std::string_view legacy_reduction(std::optional<bool> size_average, std::optional<bool> reduce,
                                  std::string_view reduction);
Tensor reduce_loss(const Tensor& loss, Reduction reduction);

}  // namespace opsin

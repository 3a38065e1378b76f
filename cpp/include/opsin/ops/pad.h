// More elements around a tensor, or fewer.
#pragma once

#include <string_view>

#include <opsin/tensor.h>

namespace opsin {

/// `pad` holds (before, after) pairs from the last dimension backwards; negative numbers crop. mode
/// "constant" fills with `value`; "reflect" mirrors without the edge, "replicate" repeats the edge,
/// "circular" wraps around.
OPSIN_API Tensor pad(const Tensor& input, IntSpan pad, std::string_view mode = "constant",
                     std::optional<double> value = std::nullopt);

}  // namespace opsin

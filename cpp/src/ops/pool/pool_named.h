// Pooling for functions made of it, whose name errors have.
#pragma once

#include <optional>

#include <opsin/tensor.h>

namespace opsin {

Tensor avg_pool_named(const char* op, size_t axes, const Tensor& input, IntSpan kernel_size, IntSpan stride,
                      IntSpan padding, bool ceil_mode, bool count_include_pad,
                      std::optional<int64_t> divisor_override);
Tensor max_pool_named(const char* op, size_t axes, const Tensor& input, IntSpan kernel_size, IntSpan stride,
                      bool ceil_mode);

}  // namespace opsin

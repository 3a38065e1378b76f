// Pooling for functions made of it, whose name errors have.
#pragma once

#include <optional>
#include <string_view>

#include <opsin/tensor.h>

namespace opsin {

/// Padding as an argument: in numbers or, unless empty, by name.
struct PoolPadding {
  PoolPadding() = default;
  PoolPadding(IntSpan numbers_) : numbers(numbers_) {}
  PoolPadding(std::string_view name_) : name(name_) {}

  IntSpan numbers;
  std::string_view name;
};

Tensor avg_pool_named(const char* op, size_t axes, const Tensor& input, IntSpan kernel_size, IntSpan stride,
                      PoolPadding padding, bool ceil_mode, bool count_include_pad,
                      std::optional<int64_t> divisor_override);
Tensor max_pool_named(const char* op, size_t axes, const Tensor& input, IntSpan kernel_size, IntSpan stride,
                      PoolPadding padding, bool ceil_mode);

}  // namespace opsin

// Padding of windows that slide over an input: per side in numbers, or by name.
#pragma once

#include <string_view>

#include <opsin/shape.h>

namespace opsin {

/// Numbers per axis before and behind.
struct ConvSides {
  Dims begin, end;
};

/// Padding of one entry, one for each axis, or (before, behind) for each axis.
ConvSides conv_sides(const char* op, size_t axes, IntSpan padding);

/// Raises unless the name is known and fits the stride.
void check_padding_name(const char* op, std::string_view name, IntSpan stride);
/// What a name stands for on an axis of `size` positions with windows that reach over `reach` of them.
void add_named_padding(std::string_view name, size_t axis, int64_t size, int64_t reach, int64_t step,
                       ConvSides& to);

}  // namespace opsin

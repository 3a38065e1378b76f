// Padding of convolution, pooling and their transposes, per side and by name.
#include "conv_padding.h"

#include <algorithm>

#include <opsin/error.h>

namespace opsin {

ConvSides conv_sides(const char* op, size_t axes, IntSpan padding) {
  ConvSides sides;
  if (padding.size() != 2 * axes) {
    OPSIN_CHECK(ShapeError, padding.size() <= 1 || padding.size() == axes, op,
                ": expected padding to have 1 or ", axes, " entries, or ", 2 * axes,
                " (before and behind for each axis), got ", str(padding));
    sides.begin = sides.end = per_axis(padding, axes, 0, 0, op, "padding");
    return sides;
  }
  for (size_t i = 0; i < axes; ++i) {
    sides.begin.push_back(padding[2 * i]);
    sides.end.push_back(padding[2 * i + 1]);
    OPSIN_CHECK(ShapeError, padding[2 * i] >= 0 && padding[2 * i + 1] >= 0, op,
                ": expected padding of at least 0, got ", str(padding));
  }
  return sides;
}

void check_padding_name(const char* op, std::string_view name, IntSpan stride) {
  OPSIN_CHECK(
      ValueError,
      name == "valid" || name == "same" || name == "same_upper" || name == "same_lower" || name == "causal",
      op, ": Invalid padding string: expected 'valid', 'same', 'same_upper', 'same_lower' or 'causal', got '",
      name, "'");
  if (name != "same") return;
  for (const int64_t step : stride) {
    OPSIN_CHECK(ValueError, step == 1, op,
                ": padding='same' is not supported for strided windows, got stride ", str(stride),
                " (pass 'same_upper', as in TensorFlow, or 'same_lower')");
  }
}

void add_named_padding(std::string_view name, size_t axis, int64_t size, int64_t reach, int64_t step,
                       ConvSides& to) {
  int64_t begin = 0, end = 0;
  if (name != "valid") {
    const int64_t out = (size + step - 1) / step;
    const int64_t total = std::max<int64_t>((out - 1) * step + reach - size, 0);
    if (name == "causal" && axis == 0) {
      begin = reach - 1;
    } else if (name == "same_lower") {
      end = total / 2;
      begin = total - end;
    } else {
      begin = total / 2;
      end = total - begin;
    }
  }
  to.begin.push_back(begin);
  to.end.push_back(end);
}

}  // namespace opsin

// Work per channel on the CPU, in either order of memory, split by shape alone.
#pragma once

#include "norm_kernels.h"

#include <vector>

namespace opsin::cpu {

using Numbers = std::vector<double>;

class Channels {
 public:
  explicit Channels(const ChannelShape& shape) : shape_(shape) {}

  int64_t per_channel() const { return shape_.batch * shape_.inner; }

  /// Per channel the sums of g and of g (x - shift); without g, of x - shift and its square.
  void sums(const void* x, const void* g, const Numbers& shift, Numbers& sum, Numbers& product) const;
  /// The first element of each channel.
  Numbers first_elements(const void* x) const;
  /// Runs `kernel` over all elements. The numbers per channel in `numbers` are mean, scale, offset, slope.
  void apply(void (*kernel)(const ChannelParams&), const void* x, const void* g, void* y,
             const Numbers (&numbers)[4]) const;

 private:
  ChannelShape shape_;
};

}  // namespace opsin::cpu

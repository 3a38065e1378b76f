// Work per channel on the CPU, in either order of memory, split by shape alone.
#pragma once

#include "norm_kernels.h"

#include <vector>

#include <opsin/tensor.h>

namespace opsin::cpu {

using Numbers = std::vector<double>;

/// A number near `mean` from which sums are taken: of so few digits that float32 values less it are hardly
/// rounded; float32 holds it. Differences from any other are all rounded the same way, which adds up.
double near_mean(double mean, double inverse);

class Channels {
 public:
  explicit Channels(const ChannelShape& shape) : shape_(shape) {}

  int64_t per_channel() const { return shape_.batch * shape_.inner; }

  /// Per channel the sums of g and of g (x - shift); without g, of x - shift and its square. Takes x, g,
  /// relu, ceiling, relu_output and masked of `params`; `numbers` are for relu.
  void sums(const ChannelParams& params, const void* numbers, const Numbers& shift, Numbers& sum,
            Numbers& product) const;
  /// The first element of each channel.
  Numbers first_elements(const void* x) const;
  /// Runs `kernel` over all elements: x, g, residual, y, relu and ceiling of `params` with `rows` rows of
  /// `numbers` per channel, of the compute type.
  void apply(void (*kernel)(const ChannelParams&), const ChannelParams& params, const void* numbers,
             int64_t rows) const;

 private:
  /// `params` moved to a later element.
  ChannelParams at(ChannelParams params, int64_t element) const;
  /// `rows` rows of numbers, each `times` times: in `memory`, or where they are if that is once.
  const char* repeated(const void* numbers, int64_t rows, int64_t times, Tensor& memory) const;

  ChannelShape shape_;
};

}  // namespace opsin::cpu

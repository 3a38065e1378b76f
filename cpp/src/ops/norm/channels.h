// Work per channel over `[N, C, spatial...]`, in either order of memory.
#pragma once

#include "norm_kernels.h"

#include <vector>

#include <opsin/tensor.h>

namespace opsin {

/// The elements of a tensor by channel, split by shape alone.
class Channels {
 public:
  /// x is contiguous or hidden channels-last; every other tensor given here has the same order.
  explicit Channels(const Tensor& x);

  int64_t channels() const { return channels_; }
  int64_t per_channel() const { return batch_ * inner_; }
  /// A dense tensor in the order of x: `t` itself if it already is.
  Tensor aligned(const Tensor& t) const;
  Tensor empty_like_x() const;

  /// Per channel the sums of g and of g (x - shift); without g, of x - shift and its square.
  void sums(const Tensor& x, const Tensor& g, const std::vector<double>& shift, std::vector<double>& sum,
            std::vector<double>& product) const;
  /// The first element of each channel.
  std::vector<double> first_elements(const Tensor& x) const;
  /// Runs `kernel` over all elements. The numbers per channel in `numbers` are mean, scale, offset, slope.
  void apply(void (*kernel)(const cpu::ChannelParams&), const Tensor& x, const Tensor& g, const Tensor& y,
             const std::vector<double> (&numbers)[4]) const;

 private:
  bool hidden_;
  bool columns_;
  Dims sizes_;
  DType dtype_;
  int64_t batch_, channels_, inner_;
};

}  // namespace opsin

// What the next block of pixels reads, fetched while this one is multiplied.
#pragma once

#include <cstdint>

#include "cpu/kernels/conv_table.h"

namespace opsin::cpu::conv {

/// Elements of a line of the cache.
template <class S>
inline constexpr int64_t line = 64 / static_cast<int64_t>(sizeof(S));

/// Two stretches of memory, of which each call of ConvKernels::outer fetches a part: in the order of memory
/// and no more than a line every few steps, so that other loads need not wait.
template <class S>
class FetchAhead {
 public:
  /// `none` is read in their place where nothing is left.
  explicit FetchAhead(const S* none) : none_(none) {}

  void add(const S* data, int64_t elements) { rest_[rest_[0].elements > 0 ? 1 : 0] = {data, elements}; }

  /// For a call with so many register tiles, of the pixels that `a` has.
  void next(int64_t tiles, int64_t fetch_pixels, ConvOuter<S>& a) {
    a.ahead = none_;
    a.ahead_stride = 0;
    for (Rest& rest : rest_) {
      if (rest.elements <= 0) continue;
      const int64_t some = tiles * ((a.pixels + fetch_pixels - 1) / fetch_pixels) * line<S>;
      a.ahead = rest.data;
      a.ahead_stride = line<S>;
      rest.data += some;
      rest.elements -= some;
      return;
    }
  }

 private:
  struct Rest {
    const S* data;
    int64_t elements;
  };
  Rest rest_[2] = {};
  const S* none_;
};

}  // namespace opsin::cpu::conv

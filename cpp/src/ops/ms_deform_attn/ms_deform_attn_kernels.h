// The contract of the kernels of multi-scale deformable attention, and the cell of a sampled point, which
// both devices compute alike.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/kernel.h"
#include "core/math_parts.h"

namespace opsin {

/// Locations and weights are of the compute type of `dtype`, that of value, y and g. No size is 0.
struct MsDeformAttnParams {
  int64_t images, length, heads, channels;  ///< Of value.
  int64_t queries, levels, points;
  int axes;
  const int64_t* shapes;  ///< [levels, axes]
  const int64_t* starts;  ///< [levels]
  const void* locations;
  const void* weights;
  DType dtype;

  OPSIN_FN int64_t samples() const { return levels * points; }
};

/// Whether level `level` lies in the length of value, which is below 2^31.
OPSIN_FN bool is_level(const MsDeformAttnParams& p, int64_t level) {
  int64_t pixels = 1;
  for (int a = 0; a < p.axes; ++a) {
    const int64_t size = p.shapes[level * p.axes + a];
    if (size < 1 || size > p.length) return false;
    pixels *= size;
    if (pixels > p.length) return false;
  }
  return p.starts[level] >= 0 && p.starts[level] <= p.length - pixels;
}

/// The cell that a point lies in. Axes are numbered from the end: 2 is that of x; those that are lacking have
/// one pixel.
template <class T>
struct AttentionCell {
  int start;  ///< Of the level.
  int size[3], low[3];
  T fraction[3];
  bool inside;  ///< Otherwise the point counts as 0.

  /// A point of a level, sample `sample` = level * points + point of row `row` = (image * queries + query) *
  /// heads + head.
  OPSIN_FN AttentionCell(const MsDeformAttnParams& p, int64_t row, int64_t level, int64_t sample) {
    inside = is_level(p, level);
    const T* const location = static_cast<const T*>(p.locations) + (row * p.samples() + sample) * p.axes;
    start = static_cast<int>(p.starts[level]);
    for (int a = 0; a < 3; ++a) {
      const bool lacking = a < 3 - p.axes;
      size[a] = lacking ? 1 : static_cast<int>(p.shapes[level * p.axes + a - (3 - p.axes)]);
      low[a] = 0;
      fraction[a] = T(0);
      if (lacking) continue;
      const T at = location[2 - a] * static_cast<T>(size[a]) - T(0.5);
      const bool within = at > T(-1) && at < static_cast<T>(size[a]);
      inside = inside && within;
      if (!within) continue;
      const T floor = std::floor(at);
      low[a] = static_cast<int>(floor);
      fraction[a] = at - floor;
    }
  }

  /// The pixel of the whole length at a corner, bit 2 - a of which takes the upper side of axis a; -1
  /// outside.
  OPSIN_FN int pixel(int corner) const {
    int found = 0;
    bool exists = true;
    for (int a = 0; a < 3; ++a) {
      const int at = low[a] + (corner >> (2 - a) & 1);
      exists = exists && at >= 0 && at < size[a];
      found = found * size[a] + at;
    }
    return exists ? start + found : -1;
  }
  /// The weight of a corner, without the factor of axis `without`.
  OPSIN_FN T weight(int corner, int without = -1) const {
    T product = T(1);
    for (int a = 0; a < 3; ++a) {
      if (a != without) product *= corner >> (2 - a) & 1 ? fraction[a] : T(1) - fraction[a];
    }
    return product;
  }
};

/// value, y
extern OPSIN_API KernelSlot<void (*)(const MsDeformAttnParams&, const void*, void*)> ms_deform_attn_forward;
/// g, grad_value (of the compute type)
extern OPSIN_API KernelSlot<void (*)(const MsDeformAttnParams&, const void*, void*)>
    ms_deform_attn_backward_value;
/// value, g, grad_locations, grad_weights (of the compute type)
extern OPSIN_API KernelSlot<void (*)(const MsDeformAttnParams&, const void*, const void*, void*, void*)>
    ms_deform_attn_backward_points;

void register_ms_deform_attn_cpu();

}  // namespace opsin

// The contract between non-maximum suppression and its kernels.
#pragma once

#include <cmath>
#include <limits>

#include <opsin/dtype.h>

#include "../boxes/overlap_pairs.h"
#include "core/kernel.h"
#include "cpu/dispatch.h"

namespace opsin {

/// n boxes of `dtype`, float32 or float64, by class and then by falling score; `keep` says which of them
/// stay.
struct NmsParams {
  const void* boxes;      ///< [n, coordinates_of(kind, rank)]
  const int64_t* groups;  ///< Ascending; null for a single class.
  bool* keep;
  int64_t n;
  Overlap kind;  ///< kIou or kRotated
  int rank;
  double threshold;
  DType dtype;
};
extern OPSIN_API KernelSlot<void (*)(const NmsParams&)> nms_suppress;

/// `count[0]` becomes how many boxes are taken; their positions and scores come first in `taken` and `left`.
struct SoftNmsParams {
  const void* boxes;
  void* scores;    ///< [n]; overwritten. -infinity for boxes that are not there.
  int64_t* taken;  ///< [n]
  void* left;      ///< [n]
  int64_t* count;
  int64_t n;
  int rank;
  double threshold, sigma, min_score;
  bool gaussian;
  DType dtype;
};
extern OPSIN_API KernelSlot<void (*)(const SoftNmsParams&)> soft_nms_take;

void register_nms_cpu();

/// The largest T that is not above x: an overlap of type T is above both or neither.
template <class T>
T rounded_down(double x) {
  const T t = static_cast<T>(x);
  return static_cast<double>(t) > x ? std::nextafter(t, -std::numeric_limits<T>::infinity()) : t;
}

/// What is left of a score after a box with this overlap was taken.
template <class T>
OPSIN_FN T softened(T score, T overlap, T threshold, T sigma, bool gaussian) {
  const T factor = gaussian              ? math::exp(-overlap * overlap / sigma)
                   : overlap > threshold ? T(1) - overlap
                                         : T(1);
  const bool counts = overlap == overlap && score > -std::numeric_limits<T>::infinity();
  return counts ? score * factor : score;
}

namespace cpu {

/// Boxes that are tried at once.
inline constexpr int64_t kNmsTile = 256;

/// Sets removed[j], j < m <= kNmsTile, where one of `count` boxes [count, kBoxColumns] overlaps box j of
/// `columns`, column c of which begins at c * stride, by more than `threshold`.
using NmsTry = void (*)(const void* boxes, int64_t count, const void* columns, int64_t stride, int64_t m,
                        double threshold, bool* removed);
/// Softens the scores of n boxes after `box` was taken; returns where the first of the highest is.
using NmsSoften = int64_t (*)(const void* box, const void* columns, const SoftNmsParams& p);

struct NmsTable {
  NmsTry upright32[3], upright64[3];  ///< By rank - 1.
  NmsTry rotated32, rotated64;
  NmsSoften soften32[3], soften64[3];
};
OPSIN_ISA_TABLE(NmsTable, nms_table)

}  // namespace cpu

}  // namespace opsin

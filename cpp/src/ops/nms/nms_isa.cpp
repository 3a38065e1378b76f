// Trying boxes against others, compiled once per instruction set.
#include "nms_kernels.h"

#include <type_traits>

#include "core/isa_loops.h"

namespace opsin::cpu::OPSIN_ISA_NS {

namespace {

template <class T>
struct Columns {
  const T* column[kBoxColumns];

  OPSIN_FN Columns(const void* data, int64_t stride) {
    for (int c = 0; c < kBoxColumns; ++c) column[c] = static_cast<const T*>(data) + c * stride;
  }
  template <Overlap kind, int rank>
  OPSIN_FN T overlap(const T (&a)[kBoxColumns], int64_t j) const {
    const T b[kBoxColumns] = {column[0][j], column[1][j], column[2][j], column[3][j],
                              column[4][j], column[5][j], column[6][j], column[7][j]};
    return boxes::overlap(kind, rank, a, b, T(0));
  }
};

template <class T, Overlap kind, int rank>
void try_boxes(const void* others, int64_t count, const void* data, int64_t stride, int64_t m,
               double threshold, bool* removed) {
  using Mask = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;
  const Columns<T> columns(data, stride);
  const auto least = static_cast<T>(threshold);
  Mask hit[kNmsTile] = {};
  for (int64_t k = 0; k < count; ++k) {
    T a[kBoxColumns];
    for (int c = 0; c < kBoxColumns; ++c) a[c] = static_cast<const T*>(others)[k * kBoxColumns + c];
#pragma GCC ivdep
    for (int64_t j = 0; j < m; ++j) {
      hit[j] |= columns.template overlap<kind, rank>(a, j) > least ? Mask(-1) : Mask(0);
    }
    if (k % 64 == 63) {
      Mask all = -1;
      for (int64_t j = 0; j < m; ++j) all &= hit[j];
      if (all != 0) break;
    }
  }
  for (int64_t j = 0; j < m; ++j) removed[j] |= hit[j] != 0;
}

template <class T, int rank>
int64_t soften(const void* box, const void* data, const SoftNmsParams& p) {
  const Columns<T> columns(data, p.n);
  T a[kBoxColumns];
  for (int c = 0; c < kBoxColumns; ++c) a[c] = static_cast<const T*>(box)[c];
  auto* score = static_cast<T*>(p.scores);
  const auto threshold = static_cast<T>(p.threshold), sigma = static_cast<T>(p.sigma);
  const int64_t n = p.n;
  if (p.gaussian) {
#pragma GCC ivdep
    for (int64_t j = 0; j < n; ++j) {
      score[j] =
          softened(score[j], columns.template overlap<Overlap::kIou, rank>(a, j), threshold, sigma, true);
    }
  } else {
#pragma GCC ivdep
    for (int64_t j = 0; j < n; ++j) {
      score[j] =
          softened(score[j], columns.template overlap<Overlap::kIou, rank>(a, j), threshold, sigma, false);
    }
  }
  constexpr int kLanes = 32;
  T lanes[kLanes];
  for (T& lane : lanes) lane = score[0];
  int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      lanes[lane] = score[j + lane] > lanes[lane] ? score[j + lane] : lanes[lane];
    }
  }
  T highest = score[0];
  for (const T lane : lanes) highest = lane > highest ? lane : highest;
  for (; j < n; ++j) highest = score[j] > highest ? score[j] : highest;
  for (j = 0; score[j] != highest;) ++j;
  return j;
}

constexpr NmsTable kTable = {{try_boxes<float, Overlap::kIou, 1>, try_boxes<float, Overlap::kIou, 2>,
                              try_boxes<float, Overlap::kIou, 3>},
                             {try_boxes<double, Overlap::kIou, 1>, try_boxes<double, Overlap::kIou, 2>,
                              try_boxes<double, Overlap::kIou, 3>},
                             try_boxes<float, Overlap::kRotated, 2>,
                             try_boxes<double, Overlap::kRotated, 2>,
                             {soften<float, 1>, soften<float, 2>, soften<float, 3>},
                             {soften<double, 1>, soften<double, 2>, soften<double, 3>}};

}  // namespace

const NmsTable& nms_table() { return kTable; }

}  // namespace opsin::cpu::OPSIN_ISA_NS

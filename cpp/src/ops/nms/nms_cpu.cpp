// Non-maximum suppression on the CPU. A tile of boxes is tried against all that stay so far, and then its own
// boxes against each other: no memory beyond some numbers for each box.
#include "nms_kernels.h"

#include <algorithm>
#include <vector>

#include "cpu/thread_pool.h"

namespace opsin {

namespace {

using cpu::kNmsTile;

/// Boxes as columns of n each.
template <class T>
std::vector<T> columns_of(const void* boxes, Overlap kind, int rank, int64_t n) {
  std::vector<T> columns(static_cast<size_t>(n * kBoxColumns));
  const int width = coordinates_of(kind, rank);
  for (int64_t i = 0; i < n; ++i) {
    boxes::prepare(kind, rank, static_cast<const T*>(boxes) + i * width, columns.data() + i, n);
  }
  return columns;
}

template <class T>
void append_box(std::vector<T>& to, const T* columns, int64_t stride, int64_t i) {
  for (int c = 0; c < kBoxColumns; ++c) to.push_back(columns[c * stride + i]);
}

/// Sets removed[j] where one of the boxes that stay overlaps candidate j; on several threads if there are
/// many.
template <class T>
void try_tile(cpu::NmsTry attempt, const std::vector<T>& kept, const T* columns, int64_t stride, int64_t m,
              double threshold, bool* removed) {
  constexpr int64_t kPart = 1024;
  const auto count = static_cast<int64_t>(kept.size()) / kBoxColumns;
  if (count <= kPart) return attempt(kept.data(), count, columns, stride, m, threshold, removed);
  std::vector<uint8_t> parts(static_cast<size_t>((count + kPart - 1) / kPart * kNmsTile));
  cpu::parallel_for(count, kPart, [&](int64_t begin, int64_t end) {
    bool hit[kNmsTile] = {};
    attempt(kept.data() + begin * kBoxColumns, end - begin, columns, stride, m, threshold, hit);
    std::copy(hit, hit + m, parts.data() + begin / kPart * kNmsTile);
  });
  for (size_t i = 0; i < parts.size(); ++i) removed[i % kNmsTile] |= parts[i] != 0;
}

/// Boxes [begin, end), all of one class.
template <class T>
void suppress(const NmsParams& p, cpu::NmsTry attempt, const T* columns, int64_t begin, int64_t end) {
  const auto threshold = static_cast<double>(rounded_down<T>(p.threshold));
  std::vector<T> kept;
  for (int64_t first = begin; first < end; first += kNmsTile) {
    const int64_t m = std::min(kNmsTile, end - first);
    bool removed[kNmsTile] = {};
    try_tile(attempt, kept, columns + first, p.n, m, threshold, removed);
    for (int64_t i = 0; i < m; ++i) {
      p.keep[first + i] = !removed[i];
      if (removed[i]) continue;
      append_box(kept, columns, p.n, first + i);
      attempt(kept.data() + kept.size() - kBoxColumns, 1, columns + first + i + 1, p.n, m - i - 1, threshold,
              removed + i + 1);
    }
  }
}

template <class T>
void run(const NmsParams& p) {
  const auto& table = OPSIN_ISA_SELECT(cpu::nms_table);
  cpu::NmsTry attempt;
  if constexpr (std::is_same_v<T, float>) {
    attempt = p.kind == Overlap::kRotated ? table.rotated32 : table.upright32[p.rank - 1];
  } else {
    attempt = p.kind == Overlap::kRotated ? table.rotated64 : table.upright64[p.rank - 1];
  }
  const std::vector<T> columns = columns_of<T>(p.boxes, p.kind, p.rank, p.n);
  std::vector<int64_t> ends;
  for (int64_t i = 1; i <= p.n; ++i) {
    if (i == p.n || (p.groups && p.groups[i] != p.groups[i - 1])) ends.push_back(i);
  }
  cpu::parallel_for(static_cast<int64_t>(ends.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t g = begin; g < end; ++g) {
      suppress(p, attempt, columns.data(), g == 0 ? 0 : ends[static_cast<size_t>(g - 1)],
               ends[static_cast<size_t>(g)]);
    }
  });
}

template <class T>
void take(const SoftNmsParams& p) {
  const auto& table = OPSIN_ISA_SELECT(cpu::nms_table);
  const cpu::NmsSoften soften = (std::is_same_v<T, float> ? table.soften32 : table.soften64)[p.rank - 1];
  const std::vector<T> columns = columns_of<T>(p.boxes, Overlap::kIou, p.rank, p.n);
  auto* scores = static_cast<T*>(p.scores);
  int64_t next = std::max_element(scores, scores + p.n) - scores, count = 0;
  std::vector<T> box;
  while (scores[next] >= std::max(static_cast<T>(p.min_score), std::numeric_limits<T>::lowest())) {
    p.taken[count] = next;
    static_cast<T*>(p.left)[count++] = scores[next];
    scores[next] = -std::numeric_limits<T>::infinity();
    box.clear();
    append_box(box, columns.data(), p.n, next);
    next = soften(box.data(), columns.data(), p);
  }
  p.count[0] = count;
}

}  // namespace

void register_nms_cpu() {
  nms_suppress.set(DeviceType::kCPU, kFloat32, run<float>);
  nms_suppress.set(DeviceType::kCPU, kFloat64, run<double>);
  soft_nms_take.set(DeviceType::kCPU, kFloat32, take<float>);
  soft_nms_take.set(DeviceType::kCPU, kFloat64, take<double>);
}

}  // namespace opsin

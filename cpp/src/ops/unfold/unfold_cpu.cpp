// Windows as columns on the CPU: rows of columns are written, rows of images are summed, each by one thread
// and in the order of the taps.
#include "unfold_kernels.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <optional>
#include <span>
#include <vector>

#include "cpu/scratch.h"
#include "cpu/thread_pool.h"

namespace opsin {

namespace {

/// Elements that a thread takes at once.
constexpr int64_t kGrain = 1 << 14;

using Reach = cpu::UnfoldReach;

std::vector<Reach> reaches(const UnfoldGeometry& g, int axis) {
  std::vector<Reach> all;
  const int64_t step = g.stride[axis];
  for (int64_t tap = 0; tap < g.kernel[axis]; ++tap) {
    const int64_t shift = tap * g.dilation[axis] - g.pad[axis];
    const int64_t begin = shift >= 0 ? 0 : std::min((-shift + step - 1) / step, g.out[axis]);
    const int64_t room = g.in[axis] - 1 - shift;
    const int64_t end = room < 0 ? begin : std::max(std::min(room / step + 1, g.out[axis]), begin);
    all.push_back({begin, end, begin * step + shift});
  }
  return all;
}

int64_t volume(const int64_t (&size)[3]) { return size[0] * size[1] * size[2]; }

/// A task: rows that have about kGrain elements together.
int64_t rows_for(int64_t elements) { return std::max<int64_t>(kGrain / std::max<int64_t>(elements, 1), 1); }

void unfold_rows(const UnfoldGeometry& g, DType dtype, const void* images, void* columns) {
  const auto item = static_cast<int64_t>(item_size(dtype));
  const auto take = OPSIN_ISA_SELECT(cpu::unfold_table).take[std::countr_zero(static_cast<size_t>(item)) - 1];
  const int64_t taps = volume(g.kernel), windows = volume(g.out), pixels = volume(g.in);
  const std::vector<Reach> reach[3] = {reaches(g, 0), reaches(g, 1), reaches(g, 2)};
  const auto* from = static_cast<const char*>(images);
  auto* to = static_cast<char*>(columns);
  const auto write_row = [&](int64_t row) {
    const int64_t tap = row % taps;
    const Reach &r0 = reach[0][static_cast<size_t>(tap / g.kernel[2] / g.kernel[1])],
                &r1 = reach[1][static_cast<size_t>(tap / g.kernel[2] % g.kernel[1])],
                &r2 = reach[2][static_cast<size_t>(tap % g.kernel[2])];
    const char* image = from + row / taps * pixels * item;
    char* y = to + row * windows * item;
    const int64_t line = g.out[2] * item;
    const auto clear = [&](int64_t count) {
      std::memset(y, 0, static_cast<size_t>(count));
      y += count;
    };
    clear(r0.begin * g.out[1] * line);
    for (int64_t a = r0.begin; a < r0.end; ++a) {
      const int64_t i0 = r0.first + (a - r0.begin) * g.stride[0];
      clear(r1.begin * line);
      for (int64_t b = r1.begin; b < r1.end; ++b) {
        const int64_t i1 = r1.first + (b - r1.begin) * g.stride[1];
        clear(r2.begin * item);
        take(image + ((i0 * g.in[1] + i1) * g.in[2] + r2.first) * item, r2.end - r2.begin, g.stride[2], y);
        y += (r2.end - r2.begin) * item;
        clear((g.out[2] - r2.end) * item);
      }
      clear((g.out[1] - r1.end) * line);
    }
    clear((g.out[0] - r0.end) * g.out[1] * line);
  };
  cpu::parallel_for(g.planes * taps, rows_for(windows), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) write_row(row);
  });
}

/// The taps of an axis that lie on a pixel, each in one window: those of pixel i are [first[i], first[i +
/// 1]).
struct Hits {
  struct Hit {
    int64_t tap, window;
  };
  std::vector<Hit> hits;
  std::vector<size_t> first{0};

  Hits(const UnfoldGeometry& g, int axis) {
    for (int64_t i = 0; i < g.in[axis]; ++i) {
      for (int64_t tap = 0; tap < g.kernel[axis]; ++tap) {
        const int64_t from = i + g.pad[axis] - tap * g.dilation[axis];
        if (from < 0 || from % g.stride[axis] != 0 || from / g.stride[axis] >= g.out[axis]) continue;
        hits.push_back({tap, from / g.stride[axis]});
      }
      first.push_back(hits.size());
    }
  }
  std::span<const Hit> of(int64_t i) const {
    const auto at = static_cast<size_t>(i);
    return {hits.data() + first[at], first[at + 1] - first[at]};
  }
};

void fold_rows(const UnfoldGeometry& g, DType dtype, const void* columns, void* images) {
  const bool half = dtype == kFloat16 || dtype == kBFloat16;
  const auto& table = OPSIN_ISA_SELECT(cpu::unfold_table);
  const auto add = table.add[dtype == kFloat32 ? 0 : dtype == kFloat64 ? 1 : dtype == kFloat16 ? 2 : 3];
  const auto round = table.round[dtype == kFloat16 ? 0 : 1];
  const auto item = static_cast<int64_t>(item_size(dtype)),
             wide = half ? static_cast<int64_t>(sizeof(float)) : item;
  const int64_t windows = volume(g.out), taps = volume(g.kernel), width = g.in[2];
  const std::vector<Reach> reach = reaches(g, 2);
  const Hits planes(g, 0), lines(g, 1);
  const auto* from = static_cast<const char*>(columns);
  auto* to = static_cast<char*>(images);
  const auto add_row = [&](int64_t row, char* sums) {
    const int64_t i1 = row % g.in[1], i0 = row / g.in[1] % g.in[0], plane = row / g.in[1] / g.in[0];
    std::memset(sums, 0, static_cast<size_t>(width * wide));
    for (const Hits::Hit& a : planes.of(i0)) {
      for (const Hits::Hit& b : lines.of(i1)) {
        const int64_t tap = plane * taps + (a.tap * g.kernel[1] + b.tap) * g.kernel[2];
        add(from + (tap * windows + (a.window * g.out[1] + b.window) * g.out[2]) * item, reach.data(),
            g.kernel[2], windows, g.stride[2], sums);
      }
    }
  };
  cpu::parallel_for(g.planes * g.in[0] * g.in[1], rows_for(width * taps / volume(g.stride) + width),
                    [&](int64_t begin, int64_t end) {
                      std::optional<cpu::Scratch<float>> sums;
                      if (half) sums.emplace(width);
                      for (int64_t row = begin; row < end; ++row) {
                        char* y = to + row * width * item;
                        add_row(row, half ? reinterpret_cast<char*>(sums->get()) : y);
                        if (half) round(sums->get(), width, y);
                      }
                    });
}

}  // namespace

void register_unfold_cpu() {
  for (const DType dtype : {kFloat16, kBFloat16, kFloat32, kFloat64}) {
    unfold_forward.set(DeviceType::kCPU, dtype, unfold_rows);
    fold_columns.set(DeviceType::kCPU, dtype, fold_rows);
  }
}

}  // namespace opsin

// Windows as columns on the CPU: rows of columns are written, rows of images are summed, each by one thread
// and in the order of the taps.
#include "unfold_kernels.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <optional>
#include <vector>

#include "cpu/scratch.h"
#include "cpu/thread_pool.h"

namespace opsin {

namespace {

/// Elements that a thread takes at once.
constexpr int64_t kGrain = 1 << 14;

/// The windows [begin, end) of an axis whose tap lies inside the image, and where it lies in the first one.
struct Reach {
  int64_t begin, end, first;
};

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

/// The window of an axis whose tap lies on pixel `i`, or -1.
int64_t window_at(const UnfoldGeometry& g, int axis, int64_t i, int64_t tap) {
  const int64_t from = i + g.pad[axis] - tap * g.dilation[axis];
  if (from < 0 || from % g.stride[axis] != 0) return -1;
  const int64_t o = from / g.stride[axis];
  return o < g.out[axis] ? o : -1;
}

void fold_rows(const UnfoldGeometry& g, DType dtype, const void* columns, void* images) {
  const bool half = dtype == kFloat16 || dtype == kBFloat16;
  const auto& table = OPSIN_ISA_SELECT(cpu::unfold_table);
  const auto add = table.add[dtype == kFloat32 ? 0 : dtype == kFloat64 ? 1 : dtype == kFloat16 ? 2 : 3];
  const auto round = table.round[dtype == kFloat16 ? 0 : 1];
  const auto item = static_cast<int64_t>(item_size(dtype)),
             wide = half ? static_cast<int64_t>(sizeof(float)) : item;
  const int64_t windows = volume(g.out), taps = volume(g.kernel), width = g.in[2];
  const std::vector<Reach> reach = reaches(g, 2);
  const auto* from = static_cast<const char*>(columns);
  auto* to = static_cast<char*>(images);
  const auto add_row = [&](int64_t row, char* sums) {
    const int64_t i1 = row % g.in[1], i0 = row / g.in[1] % g.in[0], plane = row / g.in[1] / g.in[0];
    std::memset(sums, 0, static_cast<size_t>(width * wide));
    for (int64_t a = 0; a < g.kernel[0]; ++a) {
      const int64_t o0 = window_at(g, 0, i0, a);
      if (o0 < 0) continue;
      for (int64_t b = 0; b < g.kernel[1]; ++b) {
        const int64_t o1 = window_at(g, 1, i1, b);
        if (o1 < 0) continue;
        const int64_t tap =
            (plane * taps + (a * g.kernel[1] + b) * g.kernel[2]) * windows + (o0 * g.out[1] + o1) * g.out[2];
        for (int64_t c = 0; c < g.kernel[2]; ++c) {
          const Reach& r = reach[static_cast<size_t>(c)];
          add(from + (tap + c * windows + r.begin) * item, r.end - r.begin, g.stride[2],
              sums + r.first * wide);
        }
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

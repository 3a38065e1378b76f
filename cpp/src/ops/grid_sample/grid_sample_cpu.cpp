// Sampling on the CPU: points are shared among the threads; where they add up, images and ranges of their
// channels are.
#include "grid_sample_kernels.h"
#include "grid_sample_table.h"

#include <algorithm>
#include <cstring>

#include <opsin/error.h>

#include "cpu/thread_pool.h"

namespace opsin {

namespace {

using cpu::GridCall;
using cpu::GridTable;

const GridTable::Kernels& kernels_of(DType dtype) {
  const GridTable& table = OPSIN_ISA_SELECT(cpu::grid_table);
  return dtype == kFloat64    ? table.f64
         : dtype == kFloat16  ? table.f16
         : dtype == kBFloat16 ? table.bf16
                              : table.f32;
}

GridCall call_of(const GridParams& p) {
  GridCall a{};
  a.mode = p.mode;
  a.padding = p.padding;
  a.align_corners = p.align_corners;
  a.rank = p.rank;
  for (int i = 0; i < 3; ++i) {
    a.order[i] = p.order[i];
    a.size[i] = static_cast<int>(p.size[i]);
  }
  a.end = p.points;
  a.c1 = p.channels;
  a.pixel_step = a.point_step = p.channels_last ? p.channels : 1;
  a.channel_step = p.channels_last ? 1 : p.pixels();
  a.value_step = p.channels_last ? 1 : p.points;
  return a;
}

/// The element of image `n` of memory that has `each` elements for an image.
template <class Data>
Data* at(Data* data, int64_t n, int64_t each, DType dtype) {
  using Byte = std::conditional_t<std::is_const_v<Data>, const char, char>;
  return static_cast<Byte*>(data) + n * each * static_cast<int64_t>(item_size(dtype));
}

int64_t taps_of(const GridParams& p) {
  const int64_t taps = grid::taps_per_axis(p.mode);
  return p.rank == 3 ? taps * taps * taps : taps * taps;
}

/// Calls body(call for points of one image, image).
template <class F>
void for_points(const GridParams& p, F&& body) {
  constexpr int64_t kPart = 256;
  const int64_t parts = (p.points + kPart - 1) / kPart;
  const int64_t work = kPart * (16 * p.rank + taps_of(p) * p.channels);
  cpu::parallel_for(p.batch * parts, std::max<int64_t>(1, 65536 / work), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      GridCall a = call_of(p);
      a.begin = i % parts * kPart;
      a.end = std::min(a.begin + kPart, p.points);
      const int64_t n = i / parts;
      a.grid = at(p.grid, n, p.points * p.rank, p.dtype);
      if (p.image) a.image = at(p.image, n, p.channels * p.pixels(), p.dtype);
      if (p.values) a.values = at(p.values, n, p.channels * p.points, p.dtype);
      body(a, n);
    }
  });
}

void forward(const GridParams& p) {
  const auto run = kernels_of(p.dtype).forward;
  for_points(p, [&](GridCall& a, int64_t n) {
    a.out = at(p.out, n, p.channels * p.points, p.dtype);
    run(a);
  });
}

void slopes(const GridParams& p) {
  const auto run = kernels_of(p.dtype).slopes;
  for_points(p, [&](GridCall& a, int64_t n) {
    a.out = at(p.out, n, p.points * p.rank, p.dtype);
    run(a);
  });
}

void scatter(const GridParams& p) {
  const auto run = kernels_of(p.dtype).scatter;
  const DType sum = p.dtype == kFloat64 ? kFloat64 : kFloat32;
  // About sixteen tasks, which their sizes alone decide.
  int64_t block = std::clamp<int64_t>((p.batch * p.channels + 15) / 16, 1, p.channels);
  if (p.channels_last && p.channels >= 8) block = std::min((block + 15) / 16 * 16, p.channels);
  const int64_t blocks = (p.channels + block - 1) / block, pixels = p.pixels();
  std::memset(p.out, 0, static_cast<size_t>(p.batch * p.channels * pixels) * item_size(sum));
  cpu::parallel_for(p.batch * blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t n = i / blocks;
      GridCall a = call_of(p);
      a.c0 = i % blocks * block;
      a.c1 = std::min(a.c0 + block, p.channels);
      a.grid = at(p.grid, n, p.points * p.rank, p.dtype);
      a.values = at(p.values, n, p.channels * p.points, p.dtype);
      a.out = at(p.out, n, p.channels * pixels, sum);
      run(a);
    }
  });
}

}  // namespace

void register_grid_sample_cpu() {
  for (const DType dtype : {kFloat32, kFloat64, kFloat16, kBFloat16}) {
    grid_sample_forward.set(DeviceType::kCPU, dtype, forward);
    grid_sample_scatter.set(DeviceType::kCPU, dtype, scatter);
    grid_sample_slopes.set(DeviceType::kCPU, dtype, slopes);
  }
}

}  // namespace opsin

// Fills the CPU slots of deformable sampling.
#include "deform_conv_kernels.h"

#include <algorithm>

#include "cpu/thread_pool.h"

namespace opsin {

namespace {

constexpr int64_t kRowsOfTask = 16;
/// Of a task that spreads: fewer would look up every point more often.
constexpr int64_t kLeastChannels = 32;

int index_of(DType dtype) {
  return dtype == kFloat32 ? 0 : dtype == kFloat64 ? 1 : dtype == kFloat16 ? 2 : 3;
}

void columns(const DeformPart& p) {
  const auto run = OPSIN_ISA_SELECT(cpu::deform_table).columns[index_of(p.dtype)];
  cpu::parallel_for(p.rows, kRowsOfTask, [&](int64_t begin, int64_t end) { run(p, begin, end); });
}

void products(const DeformPart& p) {
  const auto run = OPSIN_ISA_SELECT(cpu::deform_table).products[index_of(p.dtype)];
  cpu::parallel_for(p.rows, kRowsOfTask, [&](int64_t begin, int64_t end) { run(p, begin, end); });
}

/// A task has some channels of one image to itself and adds to them in the order of rows, so that how many
/// channels it has changes no sum.
void spread(const DeformPart& p) {
  const auto run = OPSIN_ISA_SELECT(cpu::deform_table).spread[index_of(p.dtype)];
  const DeformGeometry& g = p.geometry;
  const int64_t of_image = g.out[0] * g.out[1] * g.out[2];
  const int64_t first_image = p.first / of_image, last_image = (p.first + p.rows - 1) / of_image;
  const int64_t images = last_image - first_image + 1;
  const int64_t wanted = std::max<int64_t>(2 * cpu::num_threads() / images, 1);
  const int64_t each =
      std::max((g.channels / wanted + kLeastChannels - 1) / kLeastChannels * kLeastChannels, kLeastChannels);
  const int64_t parts = (g.channels + each - 1) / each;
  cpu::parallel_for(images * parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t image = first_image + task / parts, from = task % parts * each;
      run(p, std::max(image * of_image - p.first, int64_t{0}),
          std::min((image + 1) * of_image - p.first, p.rows), from, std::min(from + each, g.channels));
    }
  });
}

}  // namespace

void register_deform_conv_cpu() {
  for (const DType dtype : {kFloat16, kBFloat16, kFloat32, kFloat64}) {
    deform_columns.set(DeviceType::kCPU, dtype, columns);
    deform_spread.set(DeviceType::kCPU, dtype, spread);
    deform_products.set(DeviceType::kCPU, dtype, products);
  }
}

}  // namespace opsin

// Fills the CPU slots of unshared convolution.
#include "conv_local_kernels.h"

#include "cpu/scratch.h"
#include "cpu/thread_pool.h"

namespace opsin {

namespace {

constexpr int64_t kImages = 4;
constexpr int64_t kChannels = 16;  ///< A cache line of float32.
/// Multiplications of a task.
constexpr int64_t kTaskWork = 1 << 15;

int index_of(DType dtype) {
  return dtype == kFloat32 ? 0 : dtype == kFloat64 ? 1 : dtype == kFloat16 ? 2 : 3;
}

int64_t product(const int64_t (&sizes)[3]) { return sizes[0] * sizes[1] * sizes[2]; }

/// Memory of one task.
struct Memory {
  cpu::Scratch<int64_t> pixels;
  cpu::Scratch<double> values;

  Memory(const LocalConv& conv, int64_t count)
      : pixels(product(conv.geometry.kernel)), values(conv.dtype == kFloat64 ? count : (count + 1) / 2) {}
  cpu::LocalScratch scratch() const { return {pixels.get(), values.get()}; }
};

/// Calls run(conv, begin, end, scratch) for ranges of positions, with room for `images` windows.
template <class F>
void for_positions(const LocalConv& conv, int64_t images, F run) {
  const cpu::ConvGeometry& g = conv.geometry;
  const int64_t length = g.in_channels / g.groups * product(g.kernel);
  const int64_t work = g.batch * g.out_channels * length;
  cpu::parallel_for(product(g.out), 1 + kTaskWork / work, [&](int64_t begin, int64_t end) {
    const Memory memory(conv, images * length);
    run(conv, begin, end, memory.scratch());
  });
}

void forward(const LocalConv& conv) {
  for_positions(conv, kImages, OPSIN_ISA_SELECT(cpu::local_conv_table).forward[index_of(conv.dtype)]);
}

void backward_weight(const LocalConv& conv) {
  for_positions(conv, conv.geometry.batch,
                OPSIN_ISA_SELECT(cpu::local_conv_table).backward_weight[index_of(conv.dtype)]);
}

/// A task has some channels of some images to itself and adds to them in the order of positions.
void backward_input(const LocalConv& conv) {
  const auto run = OPSIN_ISA_SELECT(cpu::local_conv_table).backward_input[index_of(conv.dtype)];
  const cpu::ConvGeometry& g = conv.geometry;
  const int64_t channels = g.in_channels / g.groups;
  const int64_t parts = (channels + kChannels - 1) / kChannels;
  const int64_t of_images = g.groups * parts, tasks = (g.batch + kImages - 1) / kImages * of_images;
  cpu::parallel_for(tasks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t image = task / of_images * kImages, images = std::min(kImages, g.batch - image);
      const int64_t group = task % of_images / parts, from = task % parts * kChannels;
      const int64_t to = std::min(from + kChannels, channels);
      const Memory memory(conv, images * (product(g.in) + product(g.kernel)) * (to - from));
      run(conv, image, images, group, from, to, memory.scratch());
    }
  });
}

}  // namespace

void register_conv_local_cpu() {
  for (const DType dtype : {kFloat16, kBFloat16, kFloat32, kFloat64}) {
    conv_local_forward.set(DeviceType::kCPU, dtype, forward);
    conv_local_backward_input.set(DeviceType::kCPU, dtype, backward_input);
    conv_local_backward_weight.set(DeviceType::kCPU, dtype, backward_weight);
  }
}

}  // namespace opsin

// How a convolution, or the gradient of its input, is laid out for the kernels: phases, taps and pixel
// addresses.
#pragma once

#include "conv.h"

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "cpu/dispatch.h"
#include "cpu/kernels/conv_table.h"
#include "cpu/stream.h"

namespace opsin::cpu::conv {

/// One axis of a phase: target index first + i * every reads source indices i * step + shifts[t], i < count.
struct Axis {
  int64_t source_size, target_size;
  int64_t first, every, count, step;
  std::vector<int64_t> shifts;  ///< ascending
  std::vector<int64_t> taps;    ///< index into the kernel of each shift
};

/// A set of target pixels that all use the same taps. A forward convolution is one phase; the gradient of the
/// input of a strided one has a phase per residue of the pixel modulo the stride, so that no work is spent on
/// zeros.
struct Phase {
  Axis axis[3];
  int64_t taps;        ///< of the kernel, over all axes
  int64_t first_slot;  ///< of its taps in the packed weights
  int64_t run = 1;     ///< adjacent source pixels that one address stands for, see merge_runs()

  int64_t pixels(int64_t batch) const { return batch * axis[0].count * axis[1].count * axis[2].count; }
  /// Addresses per pixel.
  int64_t addresses() const { return taps / run; }
};

struct Phases {
  std::vector<Phase> phases;
  std::vector<int64_t> slot;  ///< packed position of each tap of the kernel; every tap has one
  int64_t kernel_taps;
  int64_t most_taps;  ///< of a phase
};

Phases forward_phases(const ConvGeometry& geometry);
Phases backward_input_phases(const ConvGeometry& geometry);

/// With few channels, neighbours along the width are one longer channel axis, since they are adjacent in
/// memory. Applies where the phase's shifts along the width are consecutive and all `channels` of a pixel
/// belong to one group.
void merge_runs(Phases& phases, int64_t channels, int64_t groups);

/// The tensor that is read: [batch, sizes of the axes, channels].
template <class T>
struct Source {
  const T* data;
  int64_t channels;
  const T* zeros;  ///< as many as channels, or run * channels if larger
};

/// Elements of `patches` that list_sources may need.
inline int64_t patch_elements(const Phase& phase, int64_t pixels, int64_t channels) {
  return phase.run == 1 ? 0 : pixels * phase.taps * channels;
}

/// Writes the addresses that pixels [begin, end) of a phase read, as [ceil(pixels /
/// tile)][addresses()][tile]. Addresses outside of the source are `zeros`; runs that are partly outside are
/// copied to `patches`.
template <class T>
void list_sources(const Phase& phase, const Source<T>& source, int64_t begin, int64_t end, int64_t tile,
                  const T** out, T* patches);

/// Writes the addresses of the same pixels in the target [batch, sizes of the axes, channels].
template <class T>
void list_targets(const Phase& phase, T* data, int64_t channels, int64_t begin, int64_t end, T** out);

/// Whether dense convolution of bfloat16 has kernels of its own at `isa()`.
inline bool has_bf16_kernels() { return isa() >= Isa::avx512_bf16; }
/// Whether these multiply tiles, so fast that no other algorithm saves time.
inline bool has_bf16_tiles() { return isa() == Isa::amx_bf16; }

/// The dense kernels of `isa()` for float, double or, where it has them, BFloat16.
template <class S>
const ConvKernels<S>& kernels() {
  if constexpr (std::is_same_v<S, float>) return OPSIN_ISA_SELECT(conv_table).f32;
  if constexpr (std::is_same_v<S, double>) return OPSIN_ISA_SELECT(conv_table).f64;
#if defined(__x86_64__)
  if constexpr (std::is_same_v<S, BFloat16>) {
    return has_bf16_tiles() ? amx_bf16::conv_kernels() : avx512_bf16::conv_kernels();
  }
#endif
}

const ConvDepthwiseKernels<BFloat16>& bf16_depthwise_kernels();

template <class S>
const ConvDepthwiseKernels<S>& depthwise_kernels() {
  [[maybe_unused]] const ConvDepthwiseTable& all = OPSIN_ISA_SELECT(conv_depthwise_table);
  if constexpr (std::is_same_v<S, float>) return all.f32;
  if constexpr (std::is_same_v<S, double>) return all.f64;
  if constexpr (std::is_same_v<S, BFloat16>) return bf16_depthwise_kernels();
  if constexpr (std::is_same_v<S, Float16>) return all.f16;
}

template <class S>
inline constexpr DType dtype_of = std::is_same_v<S, float>      ? kFloat32
                                  : std::is_same_v<S, double>   ? kFloat64
                                  : std::is_same_v<S, BFloat16> ? kBFloat16
                                                                : kFloat16;

/// Pixels of an axis-wise size; 0 if an axis is empty.
inline int64_t volume(const int64_t (&size)[3]) {
  return std::max<int64_t>(size[0], 0) * std::max<int64_t>(size[1], 0) * std::max<int64_t>(size[2], 0);
}

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/// Multiplications of the whole convolution.
inline double work(const ConvGeometry& g) {
  double product = static_cast<double>(g.batch) * static_cast<double>(g.in_channels) *
                   static_cast<double>(g.out_channels / g.groups);
  for (int a = 0; a < 3; ++a) product *= static_cast<double>(g.out[a]) * static_cast<double>(g.kernel[a]);
  return product;
}

/// Tasks that are worth their overhead: enough for dynamic scheduling, none shorter than about 10 us.
inline int64_t wanted_tasks(const ConvGeometry& g) {
  const double tasks = work(g) / 5e5;
  return tasks < 1 ? 1 : tasks > 32 ? 32 : static_cast<int64_t>(tasks);
}

/// Pixels whose outer products are summed in registers before they join the partial sums of a gradient of
/// weights.
template <class S>
inline constexpr int64_t weight_block_pixels = 512 / static_cast<int64_t>(sizeof(S));

/// The same where the partial sums are `elements`: those that do not stay in the second-level cache, or not
/// even in the next, are visited less often. Measured with AVX2.
template <class S>
int64_t weight_block(int64_t elements) {
  const int64_t bytes = elements * static_cast<int64_t>(sizeof(Compute<S>));
  const int64_t times = bytes <= int64_t{1} << 20 ? 1 : bytes <= int64_t{4} << 20 ? 2 : 4;
  return times * weight_block_pixels<S>;
}

/// What follows the sums of all channels of y.
template <class S>
ConvAfterSums<S> after_sums(const ConvGeometry& g, const S* y) {
  if (g.after == nullptr) return {};
  return {static_cast<const Compute<S>*>(g.after->numbers), g.out_channels,
          static_cast<const S*>(g.after->residual), y, static_cast<Compute<S>>(g.after->ceiling)};
}

// Depthwise and narrow: one instance per storage type; weights, bias and their gradients are in the type of
// computation.
template <class S>
void depthwise_forward(const ConvGeometry&, const S* x, const Compute<S>* weight, const Compute<S>* bias,
                       S* y);
template <class S>
void depthwise_backward_input(const ConvGeometry&, const S* grad_y, const Compute<S>* weight, S* grad_x);
template <class S>
void depthwise_backward_weight(const ConvGeometry&, const S* x, const S* grad_y, Compute<S>* grad_weight,
                               Compute<S>* grad_bias, bool accumulate);
// Dense: float, double and, where has_bf16_kernels(), BFloat16.
template <class S>
void dense_forward(const ConvGeometry&, const S* x, const S* weight, const Compute<S>* bias, S* y);
template <class S>
void dense_backward_input(const ConvGeometry&, const S* grad_y, const S* weight, S* grad_x);
template <class S>
void backward_weight(const ConvGeometry&, const S* x, const S* grad_y, S* grad_weight, Compute<S>* grad_bias,
                     bool accumulate);
/// Of a kernel of 1 without padding or groups, with pixels.
template <class T>
void pointwise_backward_weight(const ConvGeometry&, const T* x, const T* grad_y, T* grad_weight, T* grad_bias,
                               bool accumulate);

/// Pixel ranges for a gradient of weights with `elements` partial sums in which `tasks` are wanted per range
/// of outputs. Depends on the shape alone, and the partial sums of all ranges stay under 8 MB.
template <class S>
int64_t choose_splits(int64_t all_pixels, int64_t elements, int64_t tasks) {
  const int64_t fitting =
      (int64_t{8} << 20) / (std::max<int64_t>(1, elements) * static_cast<int64_t>(sizeof(Compute<S>)));
  const int64_t most = std::min(fitting, all_pixels / (2 * weight_block_pixels<S>));
  return std::clamp<int64_t>(tasks, 1, std::max<int64_t>(1, most));
}

/// So few target channels leave the lanes of target channels empty: there are kernels for them.
constexpr int64_t thin_columns = 4;

/// Whether the dense kernels take what follows the sums. Of long sums it is a small part, which a pass over
/// what is still in the caches does as fast: measured with AVX2, of 64 products and less 3 to 10 % are
/// gained.
inline bool dense_applies(const ConvGeometry& g) {
  return g.out_channels / g.groups > thin_columns && g.in_channels / g.groups * volume(g.kernel) < 256;
}

/// Each group has one input channel. A single channel is a group too, where it becomes one.
template <class T>
bool is_depthwise(const ConvGeometry& g) {
  return g.groups == g.in_channels && (g.groups > 1 || g.out_channels == 1);
}

/// Depthwise, and the channels fill a vector, with their neighbours along the width at least: the gradient of
/// the weights of others is that of the dense kernels.
template <class T>
bool has_depthwise_sums(const ConvGeometry& g) {
  return is_depthwise<T>(g) &&
         (g.stride[2] == 1 || g.out_channels >= std::min<int64_t>(8, depthwise_kernels<T>().lanes));
}

/// Whether all of a depthwise convolution runs by the blocks of kernels/conv_depthwise.h, which take what
/// follows the sums: every output has a row of taps inside.
template <class T>
bool depthwise_applies(const ConvGeometry& g) {
  const auto inside = [&](int axis) { return g.pad_begin[axis] <= 2 && g.pad_end[axis] <= 2; };
  return sizeof(Compute<T>) == 4 && g.in_channels == g.out_channels && g.kernel[0] == 1 &&
         g.pad_begin[0] == 0 && g.pad_end[0] == 0 && g.kernel[1] == 3 && g.dilation[1] == 1 && inside(1) &&
         g.kernel[2] == 3 && g.dilation[2] == 1 && g.stride[2] <= 2 && g.in_channels >= 16;
}

/// A few channels in and as many out per group, for which there is a kernel. Groups that fill a vector have
/// one for float only.
template <class T>
bool is_narrow(const ConvGeometry& g) {
  const int64_t group = g.in_channels / g.groups, lanes = depthwise_kernels<T>().lanes;
  return g.groups > 1 && g.in_channels == g.out_channels &&
         (group == 2 || group == 4 || group == 8 || group == 16) &&
         (2 * group <= lanes || (std::is_same_v<T, float> && group == lanes));
}

/// Groups for whose gradient of weights there is a kernel: of a part of a vector, or of one, which 16-bit
/// floats would have to be widened for once per channel. Of two vectors, which fill the dense tile, only with
/// the taps that have code of their own: measured with AVX2, a third less time; with other taps half as much
/// again.
template <class T>
bool sums_narrow(const ConvGeometry& g) {
  const int64_t group = g.in_channels / g.groups, lanes = depthwise_kernels<T>().lanes;
  if (g.groups == 1 || g.in_channels != g.out_channels || g.in_channels < lanes) return false;
  if (group < lanes) return group == 2 || group == 4 || group == 8;
  if (!std::is_same_v<T, Compute<T>> || group % 4 != 0) return false;
  return group == lanes ||
         (sizeof(T) == 4 && group == 2 * lanes && g.kernel[2] == 3 && g.dilation[2] == 1 && g.stride[2] <= 2);
}

}  // namespace opsin::cpu::conv

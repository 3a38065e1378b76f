// Passes over the channels of a tensor on a GPU, which batch and group normalization share: the kernels are
// in batch_norm_cuda.cu.
#pragma once

#include "column_device.h"

namespace opsin::cuda {

/// `matrices` tensors of `shape`, one after the other, each with numbers of its own: the samples of a group
/// norm with columns. Its rows of neighbours are those of one sample with more channels.
struct ChannelWork {
  ChannelShape shape;
  int64_t matrices;
  bool vectors;  ///< Whether sixteen bytes are read at once.

  template <class... Data>
  ChannelWork(const ChannelShape& shape_, int64_t matrices_, Data... data)
      : shape(shape_), matrices(matrices_), vectors(false) {
    dispatch_stored(shape.dtype,
                    [&]<class S>() { vectors = shape.columns && fits_vectors<S>(shape.channels, data...); });
  }
  int64_t channels() const { return matrices * shape.channels; }
  int64_t per_channel() const { return shape.batch * shape.inner; }
  /// Parts that sums of a channel are made of.
  int64_t slices(ColumnSum sum = ColumnSum::kMoments) const;
  /// How far apart the parts of a channel are, and where those of [matrix][channel] begin.
  __host__ __device__ int64_t part_stride() const { return 2 * shape.channels; }
  __host__ __device__ int64_t part_at(int64_t matrix, int64_t channel, int64_t slices) const {
    return matrix * slices * part_stride() + channel;
  }
};

/// What the last pass needs, `channels` numbers of each. Forward these are the numbers of the contract.
template <class T>
struct Table {
  T *mean, *scale, *offset, *slope;
  /// The numbers that the gradient's mask is made of.
  const T* mask = nullptr;

  Table(void* memory, int64_t channels)
      : mean(static_cast<T*>(memory)),
        scale(mean + channels),
        offset(scale + channels),
        slope(offset + channels) {}
  static int64_t bytes(int64_t channels) { return 4 * channels * static_cast<int64_t>(sizeof(T)); }
};

/// [matrix][slice][2][channel] sums; p has data, numbers and parts, and the rest is that of `work`.
void channel_sums(ColumnSum sum, const ChannelWork& work, int64_t slices, ColumnSumParams p);

/// y = (x - mean) scale + offset, or g scale - offset - (x - mean) slope.
enum class Pass { kForward, kResidual, kGradient, kMaskedGradient };
struct PassData {
  const void* x;
  const void* second;  ///< The residual or the gradient; null for Pass::kForward.
  void* y;
  double ceiling = 0;  ///< Of a ReLU at the end, or of the one that the gradient comes from; else 0.
};
/// `memory` is that of a Table of work.channels() numbers.
void channel_pass(Pass pass, const ChannelWork& work, void* memory, const void* mask, const PassData& data);

}  // namespace opsin::cuda

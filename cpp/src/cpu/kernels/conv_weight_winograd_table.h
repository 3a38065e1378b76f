// The contract of cpu/conv_weight_winograd.cpp with its kernels, conv_weight_winograd.h.
#pragma once

#include "conv_table.h"

namespace opsin::cpu {

/// The transforms of `step` tiles. Element e of each goes to out[e * stride]: [channels][step], channels
/// filled up with zeros to whole vectors.
template <class S>
struct WinogradSteps {
  const S* const* source;  ///< [step][pixels of a tile]
  int64_t source_offset, channels;
  S* out;
  int64_t stride;
};

/// The transform of sums [16][count] to those of the taps [9][count]; `out` may be `in`.
template <class T>
struct WinogradTaps {
  const T* in;
  T* out;
  int64_t count;  ///< whole vectors
};

/// Gradients of the weights of 3 x 3 taps, in tiles of 4 x 4 source pixels and 2 x 2 outputs.
template <class S>
struct WinogradWeightKernels {
  void (*source)(const WinogradSteps<S>&);
  void (*grad)(const WinogradSteps<S>&);
  void (*taps)(const WinogradTaps<Compute<S>>&);
};

#if defined(__x86_64__)
namespace avx512_bf16 {
const WinogradWeightKernels<BFloat16>& winograd_weight_kernels();
}
#endif

}  // namespace opsin::cpu

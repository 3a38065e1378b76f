// The contract of the padding kernels, which GPUs have. On the CPU padding is joining and copying.
#pragma once

#include "core/kernel.h"

namespace opsin {

enum class PadMode : uint8_t { kConstant, kReflect, kReplicate, kCircular };

/// Dimensions in the order of memory of what is written, which is dense; the slowest first.
struct PadParams {
  static constexpr int kMaxRank = 6;

  PadMode mode;
  DType dtype;
  int rank;
  int64_t sizes[kMaxRank];    ///< Without padding.
  int64_t padded[kMaxRank];   ///< With it.
  int64_t before[kMaxRank];   ///< Negative: cut off; then the mode is kConstant.
  int64_t strides[kMaxRank];  ///< Of `from`, in elements.
  const void* from;
  void* to;
  alignas(16) char value[16];  ///< For kConstant.
};
/// from [sizes] -> to [padded]
extern OPSIN_API KernelSlot<void (*)(const PadParams&)> pad_forward;
/// The gradient of the modes that repeat the input: from [padded] -> to [sizes], each element the sum of all
/// that show it.
extern OPSIN_API KernelSlot<void (*)(const PadParams&)> pad_backward;

}  // namespace opsin

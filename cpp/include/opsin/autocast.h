// Automatic mixed precision: inside an autocast region the ops that gain from it (convolutions, matrix
// products, linear, prelu) run in bfloat16 or float16, those that would lose accuracy (losses, prod, trace,
// 3-d pooling, reflecting and replicating padding) in float32, and all others in the dtype of their inputs.
// The lists are those of PyTorch's CPU autocast.
//
//   opsin::Tensor loss;
//   {
//     const opsin::AutocastGuard autocast;
//     loss = cross_entropy(model(images), labels);
//   }
//   loss.backward();
//
// The casts are recorded, so float32 weights get float32 gradients; the backward pass runs in the dtypes of
// the forward pass, with autocast off, wherever it is started.
#pragma once

#include <optional>

#include <opsin/device.h>
#include <opsin/dtype.h>

namespace opsin {

/// The autocast state of this thread. float64 and integer tensors are never cast.
class OPSIN_API Autocast {
 public:
  static bool is_enabled(DeviceType device = DeviceType::kCPU);
  static void set_enabled(DeviceType device, bool enabled);
  /// What the ops that gain from it run in; bfloat16 on the CPU and float16 on CUDA unless set.
  static DType dtype(DeviceType device = DeviceType::kCPU);
  static void set_dtype(DeviceType device, DType dtype);
  /// Whether the casts of float32 leaves that require grad are kept until the outermost region ends.
  static bool is_cache_enabled();
  static void set_cache_enabled(bool enabled);
  static void clear_cache();

  /// What a region changed, to be given back at its end.
  struct Region {
    DeviceType device;
    DType dtype;
    bool enabled;
    bool cache_enabled;
  };
  /// The two ends of an AutocastGuard, for callers whose scopes are not C++'s.
  static Region enter(DeviceType device, std::optional<DType> dtype, bool enabled,
                      std::optional<bool> cache_enabled);
  static void leave(const Region& region);
};

/// Scope with autocast on, or off with `enabled = false`. Nests; the end of the outermost drops the cached
/// casts. ValueError for a dtype other than float16 and bfloat16, unless not enabled.
class AutocastGuard {
 public:
  explicit AutocastGuard(DeviceType device = DeviceType::kCPU, std::optional<DType> dtype = std::nullopt,
                         bool enabled = true, std::optional<bool> cache_enabled = std::nullopt)
      : region_(Autocast::enter(device, dtype, enabled, cache_enabled)) {}
  ~AutocastGuard() { Autocast::leave(region_); }
  AutocastGuard(const AutocastGuard&) = delete;
  AutocastGuard& operator=(const AutocastGuard&) = delete;

 private:
  Autocast::Region region_;
};

}  // namespace opsin

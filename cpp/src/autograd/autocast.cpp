#include "autograd/autocast.h"

#include <algorithm>
#include <unordered_map>

#include "autograd/history.h"

namespace opsin {

namespace {

struct State {
  bool enabled[kNumDeviceTypes] = {};
  DType dtype[kNumDeviceTypes] = {kBFloat16, kFloat16};
  bool cache_enabled = true;
  int nesting = 0;
};

State& state() {
  thread_local State state;
  return state;
}

/// The cast of a leaf. What it was made from is held, so that no address is used again.
struct CachedCast {
  Tensor source;
  Ref<Storage> storage;
  uint32_t version;
  Tensor result;
};
using Cache = std::unordered_map<const TensorImpl*, CachedCast>;

Cache& cache() {
  thread_local Cache cache;
  return cache;
}

Tensor cached_cast(const Tensor& leaf, DType dtype) {
  CachedCast& entry = cache()[leaf.impl()];
  // A cast that was not recorded, or one from before a change of the leaf, is of no use now.
  const bool is_current = entry.result.defined() && entry.result.dtype() == dtype &&
                          entry.storage == leaf.impl()->storage && entry.version == leaf.version() &&
                          (entry.result.requires_grad() || !GradMode::is_enabled());
  if (!is_current) entry = {leaf, leaf.impl()->storage, leaf.version(), to(leaf, dtype)};
  return entry.result;
}

size_t index_of(DeviceType device) { return static_cast<size_t>(device); }

bool is_half(DType dtype) { return dtype == kFloat16 || dtype == kBFloat16; }

void check_dtype(DType dtype) {
  OPSIN_CHECK(ValueError, is_half(dtype), "autocast: expected dtype float16 or bfloat16, got ", name(dtype));
}

}  // namespace

bool Autocast::is_enabled(DeviceType device) { return state().enabled[index_of(device)]; }
void Autocast::set_enabled(DeviceType device, bool enabled) { state().enabled[index_of(device)] = enabled; }
DType Autocast::dtype(DeviceType device) { return state().dtype[index_of(device)]; }
void Autocast::set_dtype(DeviceType device, DType dtype) {
  check_dtype(dtype);
  state().dtype[index_of(device)] = dtype;
}
bool Autocast::is_cache_enabled() { return state().cache_enabled; }
void Autocast::set_cache_enabled(bool enabled) { state().cache_enabled = enabled; }
void Autocast::clear_cache() { cache().clear(); }

Autocast::Region Autocast::enter(DeviceType device, std::optional<DType> dtype, bool enabled,
                                 std::optional<bool> cache_enabled) {
  if (dtype && enabled) check_dtype(*dtype);
  State& now = state();
  const size_t i = index_of(device);
  const Region before{device, now.dtype[i], now.enabled[i], now.cache_enabled};
  now.enabled[i] = enabled;
  now.dtype[i] = dtype.value_or(before.dtype);
  now.cache_enabled = cache_enabled.value_or(before.cache_enabled);
  ++now.nesting;
  return before;
}

void Autocast::leave(const Region& region) {
  State& now = state();
  const size_t i = index_of(region.device);
  now.enabled[i] = region.enabled;
  now.dtype[i] = region.dtype;
  now.cache_enabled = region.cache_enabled;
  if (--now.nesting == 0) clear_cache();
}

namespace autocast {

bool is_active() {
  const State& now = state();
  return std::any_of(std::begin(now.enabled), std::end(now.enabled), [](bool on) { return on; });
}

std::optional<DType> full_dtype(const Tensor& self, std::optional<DType> dtype) {
  return !dtype && is_half(self.dtype()) && is_on(DeviceType::kCUDA, self) ? kFloat32 : dtype;
}

Suspend::Suspend() {
  State& now = state();
  std::copy(std::begin(now.enabled), std::end(now.enabled), previous_);
  std::fill(std::begin(now.enabled), std::end(now.enabled), false);
}
Suspend::~Suspend() { std::copy(std::begin(previous_), std::end(previous_), state().enabled); }

Tensor cast(const Tensor& tensor, Policy policy) {
  if (!tensor.defined() || policy == kAsIs) return tensor;
  const State& now = state();
  const size_t device = index_of(tensor.device().type);
  const DType from = tensor.dtype(), dtype = policy == kLower ? now.dtype[device] : kFloat32;
  if (!now.enabled[device] || from == dtype || !(from == kFloat32 || is_half(from))) return tensor;
  const bool is_parameter =
      policy == kLower && from == kFloat32 && tensor.requires_grad() && tensor.is_leaf();
  return is_parameter && now.cache_enabled ? cached_cast(tensor, dtype) : to(tensor, dtype);
}

}  // namespace autocast

}  // namespace opsin

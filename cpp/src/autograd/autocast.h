// What autocast does to the arguments of an op. PyTorch's policies belong to public functions, many of which
// are compositions, so a function that has one begins with a line such as
//
//   if (autocast::is_active()) return autocast::call<autocast::kLower>(mm, self, mat2);
//
// which runs it once more on cast arguments and with autocast off. Where the policies of CPU and GPU differ,
// each has a line of its own, which asks is_on(). Ops without a policy pay nothing.
#pragma once

#include <tuple>
#include <type_traits>

#include <opsin/autocast.h>
#include <opsin/tensor.h>

namespace opsin::autocast {

enum Policy : uint8_t {
  kAsIs,    ///< Their own dtypes: for a composition of functions with other policies.
  kLower,   ///< The dtype of the region.
  kFull,    ///< float32.
  kWidest,  ///< float32 if one argument has it, else the dtype of the region.
};

/// Whether autocast is on for any device.
bool is_active();

/// Whether autocast is on for `device` and one of the tensors is there.
template <class... Tensors>
bool is_on(DeviceType device, const Tensors&... tensors) {
  return ((tensors.defined() && tensors.device().type == device) || ...) && Autocast::is_enabled(device);
}

/// The dtype that a function with a dtype argument is to take on a GPU: unless the caller says which, float32
/// in place of 16-bit floats.
std::optional<DType> full_dtype(const Tensor& self, std::optional<DType> dtype);

/// Turns autocast off for all devices; the cached casts stay.
class Suspend {
 public:
  Suspend();
  ~Suspend();
  Suspend(const Suspend&) = delete;
  Suspend& operator=(const Suspend&) = delete;

 private:
  bool previous_[kNumDeviceTypes];
};

/// `tensor` as the policy wants it; itself if autocast is off for its device or does not cast its dtype.
Tensor cast(const Tensor& tensor, Policy policy);

namespace detail {
template <class T>
decltype(auto) cast_argument(const T& argument, [[maybe_unused]] Policy policy) {
  if constexpr (std::is_same_v<T, Tensor>) {
    return cast(argument, policy);
  } else {
    return (argument);
  }
}
template <class T>
bool has_float32([[maybe_unused]] const T& argument) {
  if constexpr (std::is_same_v<T, Tensor>) {
    return argument.defined() && argument.dtype() == kFloat32;
  } else {
    return false;
  }
}
}  // namespace detail

template <Policy kPolicy, class F, class... Args>
auto call(F&& function, const Args&... args) {
  Policy policy = kPolicy;
  if constexpr (kPolicy == kWidest) policy = (detail::has_float32(args) || ...) ? kFull : kLower;
  const std::tuple<decltype(detail::cast_argument(args, policy))...> cast_args(
      detail::cast_argument(args, policy)...);
  const Suspend off;
  return std::apply(function, cast_args);
}

}  // namespace opsin::autocast

// Where the memory of a tensor lives.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include <opsin/api.h>

namespace opsin {

enum class DeviceType : uint8_t { kCPU, kCUDA };
inline constexpr int kNumDeviceTypes = 2;

struct Device {
  DeviceType type = DeviceType::kCPU;
  int8_t index = 0;

  constexpr bool operator==(const Device&) const = default;
  constexpr bool is_cpu() const { return type == DeviceType::kCPU; }
  constexpr bool is_cuda() const { return type == DeviceType::kCUDA; }
  /// "cpu" or "cuda:0".
  OPSIN_API std::string str() const;
  /// Parses "cpu", "cuda", "cuda:1"; ValueError on anything else.
  OPSIN_API static Device parse(std::string_view text);
};

inline constexpr Device kCPU{};

}  // namespace opsin

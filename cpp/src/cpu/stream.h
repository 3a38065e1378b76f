#pragma once

#include <cstdint>

namespace opsin::cpu {

/// Results of at least this size do not stay in the last-level cache: to fetch their lines before writing
/// them is wasted.
inline constexpr int64_t stream_bytes = int64_t{16} << 20;

}  // namespace opsin::cpu

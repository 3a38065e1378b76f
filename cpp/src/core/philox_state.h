// Where the random numbers of an op begin, as its kernels get it.
#pragma once

#include <cstdint>

#include <opsin/api.h>

#include "core/philox.h"

namespace opsin {

class Generator;

/// Outside a captured graph seed and offset are known when the op is called, and `extra` is null. A graph is
/// replayed with other numbers every time: there `extra` points to two words in the device's memory, written
/// before each replay, that kernels take into account by resolve().
struct PhiloxSeed {
  uint64_t seed = 0;
  uint64_t offset = 0;
  const uint64_t* extra = nullptr;
};

/// The seed and offset to compute with; for kernels.
OPSIN_HOST_DEVICE PhiloxSeed resolve(const PhiloxSeed& random) {
  if (!random.extra) return random;
  return {random.seed ^ random.extra[1], random.offset + random.extra[0], nullptr};
}

/// Takes `count` offsets of the generator, or of the graph that this thread captures.
OPSIN_API PhiloxSeed reserve_philox(Generator& generator, uint64_t count);

}  // namespace opsin

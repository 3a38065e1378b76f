// Seeds and states of random numbers. The numbers themselves are a function of seed and offset alone (Philox
// by counter), so an op reserves a range of offsets and computes its numbers in any order, on any device.
#pragma once

#include <cstdint>
#include <mutex>
#include <vector>

#include <opsin/api.h>

namespace opsin {

/// Where an op's random numbers begin.
struct RandomState {
  uint64_t seed;
  uint64_t offset;
};

/// A source of random numbers. Its methods may be called from several threads at once.
class OPSIN_API Generator {
 public:
  static constexpr uint64_t kDefaultSeed = 67280421310721;

  explicit Generator(uint64_t seed = kDefaultSeed);

  /// Bytes of a state.
  static constexpr size_t kStateBytes = 24;

  /// Restarts the numbers of `seed` from the beginning.
  void manual_seed(uint64_t seed);
  /// Seeds from the operating system's randomness and returns the seed.
  uint64_t seed();
  /// The seed in use.
  uint64_t initial_seed() const;
  /// The next offset that `reserve` will give.
  uint64_t offset() const;

  /// Takes `count` offsets, each four 32-bit words of Philox, and returns where they begin. Nobody else gets
  /// them.
  RandomState reserve(uint64_t count);

  /// The state as bytes, the same on every platform: a tag, the seed and the offset, little-endian.
  std::vector<uint8_t> get_state() const;
  /// Continues from a state of `get_state`; anything else raises ValueError and changes nothing.
  void set_state(const uint8_t* bytes, size_t size);

 private:
  mutable std::mutex mutex_;
  RandomState state_;
};

/// The generator that ops use when they are given none; seeded from the operating system at first use.
OPSIN_API Generator& default_generator();

/// Seeds the default generator.
OPSIN_API Generator& manual_seed(uint64_t seed);

}  // namespace opsin

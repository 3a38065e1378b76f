// Seeds and states of random numbers. The numbers themselves are a function of seed and offset alone (Philox
// by counter), so an op reserves a range of offsets and computes its numbers in any order, on any device.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include <opsin/api.h>
#include <opsin/device.h>

namespace opsin {

/// Where an op's random numbers begin.
struct RandomState {
  uint64_t seed;
  uint64_t offset;
};

/// A source of random numbers. Its methods may be called from several threads at once; copies are the same
/// source.
class OPSIN_API Generator {
 public:
  static constexpr uint64_t kDefaultSeed = 67280421310721;

  /// `device` is where the tensors live that it fills.
  explicit Generator(uint64_t seed = kDefaultSeed, Device device = kCPU);

  Device device() const;
  bool is_same(const Generator& other) const { return state_ == other.state_; }

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
  struct State;
  std::shared_ptr<State> state_;
};

/// The generator that ops on the CPU use when they are given none; seeded from the operating system at first
/// use.
OPSIN_API Generator& default_generator();
/// The same for a GPU, whether it is there or not.
OPSIN_API Generator& default_cuda_generator(int device);
OPSIN_API Generator& default_generator(Device device);

/// Seeds the default generators of all devices; returns that of the CPU.
OPSIN_API Generator& manual_seed(uint64_t seed);

}  // namespace opsin

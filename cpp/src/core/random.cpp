#include <algorithm>
#include <array>
#include <cstring>
#include <deque>
#include <mutex>
#include <random>

#include <opsin/error.h>
#include <opsin/random.h>

#include "core/backend.h"
#include "core/philox_state.h"

namespace opsin {
namespace {

constexpr std::array<uint8_t, 8> kTag = {'o', 'p', 's', 'i', 'n', 'r', 'g', 1};

void put(uint8_t* bytes, uint64_t value) {
  for (int i = 0; i < 8; ++i) bytes[i] = static_cast<uint8_t>(value >> (8 * i));
}

uint64_t get(const uint8_t* bytes) {
  uint64_t value = 0;
  for (int i = 0; i < 8; ++i) value |= uint64_t{bytes[i]} << (8 * i);
  return value;
}

uint64_t system_seed() {
  std::random_device device;
  const uint64_t high = device();
  return (high << 32) | device();
}

}  // namespace

struct Generator::State {
  const Device device;
  RandomState now;
  std::mutex mutex{};
};

Generator::Generator(uint64_t seed, Device device) : state_(new State{device, {seed, 0}}) {}

Device Generator::device() const { return state_->device; }

void Generator::manual_seed(uint64_t seed) {
  const std::lock_guard lock(state_->mutex);
  state_->now = {seed, 0};
}

uint64_t Generator::seed() {
  const uint64_t seed = system_seed();
  manual_seed(seed);
  return seed;
}

uint64_t Generator::initial_seed() const {
  const std::lock_guard lock(state_->mutex);
  return state_->now.seed;
}

uint64_t Generator::offset() const {
  const std::lock_guard lock(state_->mutex);
  return state_->now.offset;
}

RandomState Generator::reserve(uint64_t count) {
  const std::lock_guard lock(state_->mutex);
  const RandomState start = state_->now;
  state_->now.offset += count;
  return start;
}

std::vector<uint8_t> Generator::get_state() const {
  const std::lock_guard lock(state_->mutex);
  std::vector<uint8_t> bytes(kStateBytes);
  std::copy(kTag.begin(), kTag.end(), bytes.begin());
  put(bytes.data() + 8, state_->now.seed);
  put(bytes.data() + 16, state_->now.offset);
  return bytes;
}

void Generator::set_state(const uint8_t* bytes, size_t size) {
  OPSIN_CHECK(ValueError, size == kStateBytes, "Generator.set_state: expected ", kStateBytes, " bytes, got ",
              size, " (only a state of Generator.get_state can be set)");
  OPSIN_CHECK(
      ValueError, std::equal(kTag.begin(), kTag.end(), bytes),
      "Generator.set_state: expected a state that begins with the tag of this version, got other bytes"
      " (only a state of Generator.get_state can be set)");
  const std::lock_guard lock(state_->mutex);
  state_->now = {get(bytes + 8), get(bytes + 16)};
}

Generator& default_generator() {
  // Never destroyed: other threads may still draw numbers while the process ends.
  static Generator* const generator = new Generator(system_seed());
  return *generator;
}

namespace {

std::deque<Generator>& cuda_generators() {
  static std::deque<Generator>* const generators = [] {
    auto* all = new std::deque<Generator>;
    const uint64_t seed = system_seed();
    for (int i = 0; i < kMaxCudaDevices; ++i) {
      all->emplace_back(seed, Device{DeviceType::kCUDA, static_cast<int8_t>(i)});
    }
    return all;
  }();
  return *generators;
}

}  // namespace

Generator& default_cuda_generator(int device) {
  OPSIN_CHECK(Error, device >= 0 && device < kMaxCudaDevices,
              "default_cuda_generator: expected a device in [0, ", kMaxCudaDevices, "), got ", device);
  return cuda_generators()[static_cast<size_t>(device)];
}

Generator& default_generator(Device device) {
  return device.is_cpu() ? default_generator() : default_cuda_generator(device.index);
}

Generator& manual_seed(uint64_t seed) {
  // Also those of GPUs that are not there: this must not load the plug-in.
  for (Generator& generator : cuda_generators()) generator.manual_seed(seed);
  Generator& generator = default_generator();
  generator.manual_seed(seed);
  return generator;
}

PhiloxSeed reserve_philox(Generator& generator, uint64_t count) {
  if (__builtin_expect(generator.device().is_cuda(), 0)) {
    Backend* const backend = backend_state().backend;
    if (backend && backend->is_capturing()) return backend->capture_random(generator, count);
  }
  const RandomState state = generator.reserve(count);
  return {state.seed, state.offset, nullptr};
}

}  // namespace opsin

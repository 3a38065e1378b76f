#include <algorithm>
#include <array>
#include <cstring>
#include <random>

#include <opsin/error.h>
#include <opsin/random.h>

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

Generator::Generator(uint64_t seed) : state_{seed, 0} {}

void Generator::manual_seed(uint64_t seed) {
  const std::lock_guard lock(mutex_);
  state_ = {seed, 0};
}

uint64_t Generator::seed() {
  const uint64_t seed = system_seed();
  manual_seed(seed);
  return seed;
}

uint64_t Generator::initial_seed() const {
  const std::lock_guard lock(mutex_);
  return state_.seed;
}

uint64_t Generator::offset() const {
  const std::lock_guard lock(mutex_);
  return state_.offset;
}

RandomState Generator::reserve(uint64_t count) {
  const std::lock_guard lock(mutex_);
  const RandomState start = state_;
  state_.offset += count;
  return start;
}

std::vector<uint8_t> Generator::get_state() const {
  const std::lock_guard lock(mutex_);
  std::vector<uint8_t> bytes(kStateBytes);
  std::copy(kTag.begin(), kTag.end(), bytes.begin());
  put(bytes.data() + 8, state_.seed);
  put(bytes.data() + 16, state_.offset);
  return bytes;
}

void Generator::set_state(const uint8_t* bytes, size_t size) {
  OPSIN_CHECK(ValueError, size == kStateBytes, "Generator.set_state: expected ", kStateBytes, " bytes, got ",
              size, " (only a state of Generator.get_state can be set)");
  OPSIN_CHECK(
      ValueError, std::equal(kTag.begin(), kTag.end(), bytes),
      "Generator.set_state: expected a state that begins with the tag of this version, got other bytes"
      " (only a state of Generator.get_state can be set)");
  const std::lock_guard lock(mutex_);
  state_ = {get(bytes + 8), get(bytes + 16)};
}

Generator& default_generator() {
  // Never destroyed: other threads may still draw numbers while the process ends.
  static Generator* const generator = new Generator(system_seed());
  return *generator;
}

Generator& manual_seed(uint64_t seed) {
  Generator& generator = default_generator();
  generator.manual_seed(seed);
  return generator;
}

}  // namespace opsin

// Philox's words by the vector and what is made from them, compiled once per instruction set.
#include "random_functors.h"
#include "random_kernels.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace opsin::cpu::OPSIN_ISA_NS {

namespace {

#if defined(__AVX2__)
// A block per 64-bit lane. Each word fills the lower half of its lane and leaves anything in the upper one:
// the multiplication reads only lower halves, and so does the end.
#if defined(__AVX512F__)
using Lanes = __m512i;
constexpr int64_t kLanes = 8;
Lanes splat(uint64_t x) { return _mm512_set1_epi64(static_cast<int64_t>(x)); }
Lanes counters(uint64_t first) {
  return _mm512_add_epi64(splat(first), _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7));
}
Lanes multiply(Lanes a, Lanes b) { return _mm512_maskz_mul_epu32(0xff, a, b); }
Lanes upper(Lanes a) { return _mm512_maskz_srli_epi64(0xff, a, 32); }
Lanes exclusive_or(Lanes a, Lanes b, Lanes c) { return _mm512_ternarylogic_epi64(a, b, c, 0x96); }
/// Lower halves of a and b side by side.
Lanes join(Lanes a, Lanes b) {
  return _mm512_mask_blend_epi32(0xaaaa, a, _mm512_maskz_slli_epi64(0xff, b, 32));
}
void store(Lanes first, Lanes second, uint32_t* out) {
  const Lanes low = _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11);
  const Lanes high = _mm512_setr_epi64(4, 12, 5, 13, 6, 14, 7, 15);
  _mm512_storeu_si512(out, _mm512_permutex2var_epi64(first, low, second));
  _mm512_storeu_si512(out + 16, _mm512_permutex2var_epi64(first, high, second));
}
#else
using Lanes = __m256i;
constexpr int64_t kLanes = 4;
Lanes splat(uint64_t x) { return _mm256_set1_epi64x(static_cast<int64_t>(x)); }
Lanes counters(uint64_t first) { return _mm256_add_epi64(splat(first), _mm256_setr_epi64x(0, 1, 2, 3)); }
Lanes multiply(Lanes a, Lanes b) { return _mm256_mul_epu32(a, b); }
Lanes upper(Lanes a) { return _mm256_srli_epi64(a, 32); }
Lanes exclusive_or(Lanes a, Lanes b, Lanes c) { return _mm256_xor_si256(_mm256_xor_si256(a, b), c); }
Lanes join(Lanes a, Lanes b) { return _mm256_blend_epi32(a, _mm256_slli_epi64(b, 32), 0xaa); }
void store(Lanes first, Lanes second, uint32_t* out) {
  const Lanes low = _mm256_unpacklo_epi64(first, second);
  const Lanes high = _mm256_unpackhi_epi64(first, second);
  auto* to = reinterpret_cast<Lanes*>(out);
  _mm256_storeu_si256(to, _mm256_permute2x128_si256(low, high, 0x20));
  _mm256_storeu_si256(to + 1, _mm256_permute2x128_si256(low, high, 0x31));
}
#endif

/// As many blocks as fill whole vectors; returns their number.
int64_t vector_words(uint64_t seed, uint64_t offset, int64_t blocks, uint32_t* out) {
  const Lanes m0 = splat(0xD2511F53u);
  const Lanes m1 = splat(0xCD9E8D57u);
  int64_t i = 0;
  for (; i + kLanes <= blocks; i += kLanes) {
    Lanes c0 = counters(offset + static_cast<uint64_t>(i)), c1 = upper(c0), c2 = splat(0), c3 = c2;
    auto key0 = static_cast<uint32_t>(seed), key1 = static_cast<uint32_t>(seed >> 32);
#pragma GCC unroll 10
    for (int round = 0; round < 10; ++round) {
      const Lanes p0 = multiply(m0, c0), p1 = multiply(m1, c2);
      c0 = exclusive_or(upper(p1), c1, splat(key0));
      c2 = exclusive_or(upper(p0), c3, splat(key1));
      c1 = p1;
      c3 = p0;
      key0 += 0x9E3779B9u;
      key1 += 0xBB67AE85u;
    }
    store(join(c0, c1), join(c2, c3), out + 4 * i);
  }
  return i;
}
#else
int64_t vector_words(uint64_t, uint64_t, int64_t, uint32_t*) { return 0; }
#endif

void words(uint64_t seed, uint64_t offset, int64_t blocks, uint32_t* out) {
  for (int64_t i = vector_words(seed, offset, blocks, out); i < blocks; ++i) {
    const philox::Block block = philox::block(seed, offset + static_cast<uint64_t>(i));
    for (int j = 0; j < 4; ++j) out[4 * i + j] = block.word[j];
  }
}

void uniform_float(const uint32_t* words, int64_t n, int bits, double from, double range, float* y) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) y[i] = philox::uniform_in(words[i], bits, from, range);
}

void uniform_double(const uint32_t* words, int64_t n, double from, double range, double* y) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) y[i] = philox::uniform_in(words[2 * i], words[2 * i + 1], from, range);
}

void normal_float(const uint32_t* words, int64_t n, double mean, double std, float* y) {
  const int64_t pairs = n / 2;
#pragma GCC ivdep
  for (int64_t i = 0; i < pairs; ++i) {
    const auto pair = philox::normal_pair(words[2 * i], words[2 * i + 1]);
    y[2 * i] = philox::normal_with(pair.first, mean, std);
    y[2 * i + 1] = philox::normal_with(pair.second, mean, std);
  }
  if (n % 2 != 0) {
    const auto pair = philox::normal_pair(words[n - 1], words[n]);
    y[n - 1] = philox::normal_with(pair.first, mean, std);
  }
}

void normal_double(const uint32_t* words, int64_t n, double mean, double std, double* y) {
  const auto pair_at = [&](int64_t i) {
    const uint32_t* w = words + 4 * i;
    return philox::normal_pair(philox::join(w[0], w[1]), philox::join(w[2], w[3]));
  };
  const int64_t pairs = n / 2;
#pragma GCC ivdep
  for (int64_t i = 0; i < pairs; ++i) {
    const auto pair = pair_at(i);
    y[2 * i] = philox::normal_with(pair.first, mean, std);
    y[2 * i + 1] = philox::normal_with(pair.second, mean, std);
  }
  if (n % 2 != 0) y[n - 1] = philox::normal_with(pair_at(pairs).first, mean, std);
}

template <class T, class C>
void dropout(const uint32_t* words, int64_t n, uint32_t least, double scale, const void* x, void* y) {
  const auto factor = static_cast<C>(scale);
  const auto* from = static_cast<const T*>(x);
  auto* to = static_cast<T*>(y);
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) {
    const C kept = static_cast<C>(from[i]) * factor;
    to[i] = static_cast<T>((words[i] >> 8) >= least ? kept : C(0));
  }
}

constexpr RandomTable make_table() {
  RandomTable table{words, uniform_float, uniform_double, normal_float, normal_double, {}};
  table.dropout[static_cast<int>(kFloat16)] = dropout<float16, float>;
  table.dropout[static_cast<int>(kBFloat16)] = dropout<bfloat16, float>;
  table.dropout[static_cast<int>(kFloat32)] = dropout<float, float>;
  table.dropout[static_cast<int>(kFloat64)] = dropout<double, double>;
  return table;
}

constexpr RandomTable kTable = make_table();

}  // namespace

const RandomTable& random_table() { return kTable; }

}  // namespace opsin::cpu::OPSIN_ISA_NS

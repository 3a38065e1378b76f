// The loops over tiles of scores, compiled once per instruction set.
#include "attention_kernels.h"
#include "attention_rows.h"

#include <limits>

#include "core/math.h"

namespace opsin::cpu::OPSIN_ISA_NS {

namespace {

template <class T>
constexpr T kInfinity = std::numeric_limits<T>::infinity();

/// exp(x) for what is no larger than a few roundings above 0: -inf and all that has no normal number gives 0,
/// because products with subnormal results take a hundred times as long. NaN stays.
template <class T>
OPSIN_FN T weight_of(T x) {
  constexpr T kLeast = sizeof(T) == 8 ? T(-708) : T(-87);
  const T power = math::exp_bounded(x < kLeast ? kLeast : x);
  return x < kLeast ? T(0) : power;
}

template <class T>
void softmax(const AttentionSoftmax& p) {
  const int64_t n = p.queries, row = p.row;
  auto* scores = static_cast<T*>(p.scores);
  auto* max = static_cast<T*>(p.max);
  auto* sum = static_cast<T*>(p.sum);
  auto* factor = static_cast<T*>(p.factor);
#pragma GCC ivdep
  for (int64_t j = 0; j < n; ++j) factor[j] = max[j];
  int64_t k = 0;
  // NaN stays out: it comes back through the exponentials.
  const auto larger = [](T a, T b) { return a > b ? a : b; };
  for (; k + 4 <= p.keys; k += 4) {
    const T* x = scores + k * row;
#pragma GCC ivdep
    for (int64_t j = 0; j < n; ++j) {
      max[j] = larger(larger(larger(x[j], x[j + row]), larger(x[j + 2 * row], x[j + 3 * row])), max[j]);
    }
  }
  for (; k < p.keys; ++k) {
    const T* x = scores + k * row;
#pragma GCC ivdep
    for (int64_t j = 0; j < n; ++j) max[j] = larger(x[j], max[j]);
  }
  // A query that saw nothing yet has exponentials of -inf - 0.
  const auto base = [](T m) { return m == -kInfinity<T> ? T(0) : m; };
#pragma GCC ivdep
  for (int64_t j = 0; j < n; ++j) {
    factor[j] = weight_of(factor[j] - base(max[j]));
    sum[j] *= factor[j];
  }
  for (k = 0; k + 4 <= p.keys; k += 4) {
    T* x = scores + k * row;
#pragma GCC ivdep
    for (int64_t j = 0; j < n; ++j) {
      const T most = base(max[j]);
      const T a = weight_of(x[j] - most), b = weight_of(x[j + row] - most),
              c = weight_of(x[j + 2 * row] - most), d = weight_of(x[j + 3 * row] - most);
      x[j] = a;
      x[j + row] = b;
      x[j + 2 * row] = c;
      x[j + 3 * row] = d;
      sum[j] = sum[j] + a + b + c + d;
    }
  }
  for (; k < p.keys; ++k) {
    T* x = scores + k * row;
#pragma GCC ivdep
    for (int64_t j = 0; j < n; ++j) {
      x[j] = weight_of(x[j] - base(max[j]));
      sum[j] += x[j];
    }
  }
}

template <class T>
void slope(const AttentionSlope& p) {
  const auto* log_sum = static_cast<const T*>(p.log_sum);
  const auto* delta = static_cast<const T*>(p.delta);
  for (int64_t k = 0; k < p.keys; ++k) {
    T* x = static_cast<T*>(p.scores) + k * p.row;
    T* g = static_cast<T*>(p.grads) + k * p.row;
#pragma GCC ivdep
    for (int64_t j = 0; j < p.queries; ++j) {
      x[j] = weight_of(x[j] - log_sum[j]);
      g[j] = x[j] * (g[j] - delta[j]);
    }
  }
}

template <class T>
void multiply(void* x, int64_t count, double factor) {
  auto* values = static_cast<T*>(x);
  const T by = static_cast<T>(factor);
  for (int64_t i = 0; i < count; ++i) values[i] *= by;
}

template <class T>
void multiply_rows(void* x, int64_t queries, int64_t columns, const void* factor) {
  for (int64_t i = 0; i < queries; ++i) {
    T* values = static_cast<T*>(x) + i * columns;
    const T by = static_cast<const T*>(factor)[i];
    if (by == T(1)) continue;
    for (int64_t j = 0; j < columns; ++j) values[j] *= by;
  }
}

/// Calls body(element of the tile, element of the mask). As many queries at a time as leave the lines that
/// their rows of the mask begin in the first-level cache, however far apart they are.
template <class T, class M, class Body>
OPSIN_FN void for_masked(const AttentionMaskTile& p, int64_t first_key, int64_t first_query, int64_t queries,
                         Body body) {
  constexpr int64_t kQueries = 8;
  auto* scores = static_cast<T*>(p.scores);
  for (int64_t i = first_query; i < queries; i += kQueries) {
    const int64_t end = i + kQueries < queries ? i + kQueries : queries;
    for (int64_t k = first_key; k < p.keys; ++k) {
      const M* mask = static_cast<const M*>(p.mask) + k * p.key_stride;
      for (int64_t j = i; j < end; ++j) body(scores[k * p.row + j], mask + j * p.query_stride);
    }
  }
}

/// Bytes widened to whole lanes.
#if defined(__AVX512F__)
OPSIN_INLINE Int32 widen_bytes(const uint8_t* p, float) {
  return Int32(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}
OPSIN_INLINE Int64 widen_bytes(const uint8_t* p, double) {
  return Int64(_mm512_cvtepu8_epi64(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}
#elif defined(__AVX2__)
OPSIN_INLINE Int32 widen_bytes(const uint8_t* p, float) {
  return Int32(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}
OPSIN_INLINE Int64 widen_bytes(const uint8_t* p, double) {
  return Int64(_mm256_cvtepu8_epi64(_mm_loadu_si32(p)));
}
#else
OPSIN_INLINE Int32 widen_bytes(const uint8_t* p, float) { return Int32{p[0], p[1], p[2], p[3]}; }
OPSIN_INLINE Int64 widen_bytes(const uint8_t* p, double) { return Int64{p[0], p[1]}; }
#endif

/// The same by squares in registers where the keys of the mask lie side by side: square(tile, mask) gets the
/// first elements of both.
template <class T, class M, class Square, class Body>
OPSIN_FN void for_squares(const AttentionMaskTile& p, Square square, Body body) {
  constexpr int64_t lanes = lanes_of<T>;
  const int64_t keys = p.key_stride == 1 && p.query_stride != 0 ? p.keys / lanes * lanes : 0;
  const int64_t queries = keys > 0 ? p.queries / lanes * lanes : 0;
  for (int64_t i = 0; i < queries; i += lanes) {
    for (int64_t k = 0; k < keys; k += lanes) {
      square(static_cast<T*>(p.scores) + k * p.row + i,
             static_cast<const M*>(p.mask) + i * p.query_stride + k);
    }
  }
  for_masked<T, M>(p, keys, 0, queries, body);
  for_masked<T, M>(p, 0, queries, p.queries, body);
}

/// Squares of the tile are replaced: read(mask) gives a vector along the keys, whole(score, that) takes
/// vectors along the queries.
template <class T, class M, class Read, class Whole, class Body>
OPSIN_FN void mask_squares(const AttentionMaskTile& p, Read read, Whole whole, Body body) {
  constexpr int64_t lanes = lanes_of<T>;
  for_squares<T, M>(
      p,
      [&](T* x, const M* mask) {
        Vector<T> square[lanes];
#pragma GCC unroll 16
        for (int64_t j = 0; j < lanes; ++j) square[j] = read(mask + j * p.query_stride);
        transpose<T>(square);
#pragma GCC unroll 16
        for (int64_t j = 0; j < lanes; ++j) store(x + j * p.row, whole(load(x + j * p.row), square[j]));
      },
      body);
}

/// Key by key where all queries have the same mask.
template <class T, class Body>
OPSIN_FN void for_keys(const AttentionMaskTile& p, Body body) {
  for (int64_t k = 0; k < p.keys; ++k) {
    T* x = static_cast<T*>(p.scores) + k * p.row;
    body(x, k * p.key_stride);
  }
}

template <class T>
void exclude(const AttentionMaskTile& p) {
  if (p.query_stride == 0) {
    return for_keys<T>(p, [&](T* x, int64_t at) {
      if (static_cast<const bool*>(p.mask)[at]) return;
      for (int64_t j = 0; j < p.queries; ++j) x[j] = -kInfinity<T>;
    });
  }
  // By bits, so that no score waits for a branch.
  using Index = typename VectorOf<T>::Index;
  using Bits = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;
  constexpr Bits kLowest = __builtin_bit_cast(Bits, -kInfinity<T>);
  const Index lowest = __builtin_bit_cast(Index, broadcast(-kInfinity<T>));
  mask_squares<T, uint8_t>(
      p, [](const uint8_t* seen) { return __builtin_bit_cast(Vector<T>, widen_bytes(seen, T())); },
      [&](Vector<T> score, Vector<T> seen) {
        const Index kept = Index{} - __builtin_bit_cast(Index, seen);
        return __builtin_bit_cast(Vector<T>, (__builtin_bit_cast(Index, score) & kept) | (lowest & ~kept));
      },
      [](T& score, const uint8_t* seen) {
        const Bits kept = Bits{0} - Bits{*seen != 0};
        score = __builtin_bit_cast(T, (__builtin_bit_cast(Bits, score) & kept) | (kLowest & ~kept));
      });
}

template <class S>
void add(const AttentionMaskTile& p) {
  using T = Compute<S>;
  const auto* mask = static_cast<const S*>(p.mask);
  if (p.query_stride == 0) {
    return for_keys<T>(p, [&](T* x, int64_t at) {
      const T value = widen(mask[at]);
      for (int64_t j = 0; j < p.queries; ++j) x[j] += value;
    });
  }
  mask_squares<T, S>(
      p, [](const S* values) { return load_wide(values); },
      [](Vector<T> score, Vector<T> values) { return score + values; },
      [](T& score, const S* value) { score += widen(*value); });
}

template <class T>
void add_to_mask(const AttentionMaskTile& p) {
  constexpr int64_t lanes = lanes_of<T>;
  for_squares<T, T>(
      p,
      [&](const T* grads, const T* mask) {
        Vector<T> square[lanes];
#pragma GCC unroll 16
        for (int64_t j = 0; j < lanes; ++j) square[j] = load(grads + j * p.row);
        transpose<T>(square);
#pragma GCC unroll 16
        for (int64_t j = 0; j < lanes; ++j) {
          T* to = const_cast<T*>(mask) + j * p.query_stride;
          store(to, load(to) + square[j]);
        }
      },
      [](T& grad, const T* mask) { *const_cast<T*>(mask) += grad; });
}

constexpr AttentionTable make_table() {
  AttentionTable table{{softmax<float>, softmax<double>},   {slope<float>, slope<double>},
                       {multiply<float>, multiply<double>}, {multiply_rows<float>, multiply_rows<double>},
                       {add_rows<float>, add_rows<double>}, {add_to_mask<float>, add_to_mask<double>},
                       {exclude<float>, exclude<double>},   {}};
  table.add[static_cast<int>(kFloat16)] = add<Float16>;
  table.add[static_cast<int>(kBFloat16)] = add<BFloat16>;
  table.add[static_cast<int>(kFloat32)] = add<float>;
  table.add[static_cast<int>(kFloat64)] = add<double>;
  return table;
}

}  // namespace

const AttentionTable& attention_table() {
  static constexpr AttentionTable table = make_table();
  return table;
}

}  // namespace opsin::cpu::OPSIN_ISA_NS

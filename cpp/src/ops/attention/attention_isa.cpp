// The loops over tiles of scores, compiled once per instruction set.
#include "attention_kernels.h"

#include <limits>

#include "core/isa_loops.h"

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
  const T scale = static_cast<T>(p.scale);
  for (int64_t k = 0; k < p.keys; ++k) {
    T* x = static_cast<T*>(p.scores) + k * p.row;
    T* g = static_cast<T*>(p.grads) + k * p.row;
#pragma GCC ivdep
    for (int64_t j = 0; j < p.queries; ++j) {
      x[j] = weight_of(x[j] - log_sum[j]);
      g[j] = x[j] * (g[j] - delta[j]) * scale;
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
OPSIN_FN void for_masked(const AttentionMaskTile& p, Body body) {
  constexpr int64_t kQueries = 8;
  auto* scores = static_cast<T*>(p.scores);
  for (int64_t i = 0; i < p.queries; i += kQueries) {
    const int64_t end = i + kQueries < p.queries ? i + kQueries : p.queries;
    for (int64_t k = 0; k < p.keys; ++k) {
      const M* mask = static_cast<const M*>(p.mask) + k * p.key_stride;
      for (int64_t j = i; j < end; ++j) body(scores[k * p.row + j], mask + j * p.query_stride);
    }
  }
}

template <class T>
void exclude(const AttentionMaskTile& p) {
  if (p.query_stride == 0) {
    for (int64_t k = 0; k < p.keys; ++k) {
      if (static_cast<const bool*>(p.mask)[k * p.key_stride]) continue;
      T* x = static_cast<T*>(p.scores) + k * p.row;
      for (int64_t j = 0; j < p.queries; ++j) x[j] = -kInfinity<T>;
    }
    return;
  }
  // By bits, so that no score waits for a branch.
  using Bits = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;
  constexpr Bits kLowest = __builtin_bit_cast(Bits, -kInfinity<T>);
  for_masked<T, uint8_t>(p, [](T& score, const uint8_t* seen) {
    const Bits kept = Bits{0} - Bits{*seen != 0};
    score = __builtin_bit_cast(T, (__builtin_bit_cast(Bits, score) & kept) | (kLowest & ~kept));
  });
}

template <class S>
void add(const AttentionMaskTile& p) {
  using T = Compute<S>;
  for_masked<T, S>(p, [](T& score, const S* mask) { score += static_cast<T>(*mask); });
}

template <class T>
void add_to_mask(const AttentionMaskTile& p) {
  for_masked<T, T>(p, [](T& grad, const T* mask) { *const_cast<T*>(mask) += grad; });
}

constexpr AttentionTable make_table() {
  AttentionTable table{{softmax<float>, softmax<double>},
                       {slope<float>, slope<double>},
                       {multiply<float>, multiply<double>},
                       {multiply_rows<float>, multiply_rows<double>},
                       {add_to_mask<float>, add_to_mask<double>},
                       {exclude<float>, exclude<double>},
                       {}};
  table.add[static_cast<int>(kFloat16)] = add<float16>;
  table.add[static_cast<int>(kBFloat16)] = add<bfloat16>;
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

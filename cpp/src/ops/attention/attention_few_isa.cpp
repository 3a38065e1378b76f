// The loops over rows of keys and values for a few queries, compiled once per instruction set.
#include "attention_few_kernels.h"

#include <limits>

#include "core/math.h"
#include "cpu/kernels/gemm_vector.h"

namespace opsin::cpu::OPSIN_ISA_NS {

namespace {

constexpr int64_t kProducts = attention::kFewKeys;

template <class T>
constexpr T kInfinity = std::numeric_limits<T>::infinity();

/// Queries that a row is read for at a time.
template <class T>
constexpr int kTogether = lanes_of<T> >= 4 ? 4 : 2;

/// Calls pass.template operator()<R>(first) for the queries in groups of R.
template <class T, class Pass>
OPSIN_INLINE void for_queries(int64_t queries, Pass pass) {
  int64_t i = 0;
  for (; i + kTogether<T> <= queries; i += kTogether<T>) pass.template operator()<kTogether<T>>(i);
  if constexpr (kTogether<T> > 2) {
    if (i + 2 <= queries) {
      pass.template operator()<2>(i);
      i += 2;
    }
  }
  if (i < queries) pass.template operator()<1>(i);
}

/// As many sums as vectors have lanes, which are transposed to be added up.
template <class S, int R>
[[gnu::noinline]] void dot_rows(const AttentionFew& p, int64_t first) {
  using T = Compute<S>;
  constexpr int lanes = lanes_of<T>, keys = lanes / R;
  const T* vectors = static_cast<const T*>(p.vectors) + first * p.vector_stride;
  T* products = static_cast<T*>(p.products) + first * kProducts;
  for (int64_t j = 0; j < p.count; j += keys) {
    const int64_t some = p.count - j < keys ? p.count - j : keys;
    const S* row[keys];
#pragma GCC unroll 16
    for (int i = 0; i < keys; ++i)
      row[i] = static_cast<const S*>(p.rows) + (j + (i < some ? i : some - 1)) * p.stride;
    Vector<T> sum[lanes] = {};
    int64_t c = 0;
    for (; c + lanes <= p.columns; c += lanes) {
#pragma GCC unroll 16
      for (int i = 0; i < keys; ++i) {
        const Vector<T> x = load_wide(row[i] + c);
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r)
          sum[r * keys + i] = fma(load(vectors + r * p.vector_stride + c), x, sum[r * keys + i]);
      }
    }
    if (c < p.columns) {
#pragma GCC unroll 16
      for (int i = 0; i < keys; ++i) {
        const Vector<T> x = load_some<T>(row[i] + c, p.columns - c);
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r)
          sum[r * keys + i] = fma(load(vectors + r * p.vector_stride + c), x, sum[r * keys + i]);
      }
    }
    transpose<T>(sum);
#pragma GCC unroll 16
    for (int step = lanes / 2; step > 0; step /= 2) {
#pragma GCC unroll 16
      for (int i = 0; i < step; ++i) sum[i] += sum[i + step];
    }
    T all[lanes];
    store(all, sum[0]);
    for (int r = 0; r < R; ++r)
      for (int64_t i = 0; i < some; ++i) products[r * kProducts + j + i] = all[r * keys + i];
  }
}
template <class S>
void dot(const AttentionFew& p) {
  for_queries<Compute<S>>(p.queries, [&]<int R>(int64_t first) { dot_rows<S, R>(p, first); });
}

template <class S, int R, int W, bool kEdge>
[[gnu::noinline]] void add_part(const AttentionFew& p, int64_t first, int64_t column) {
  using T = Compute<S>;
  constexpr int lanes = lanes_of<T>;
  T* vectors = static_cast<T*>(p.vectors) + first * p.vector_stride + column;
  const T* products = static_cast<const T*>(p.products) + first * kProducts;
  const S* row = static_cast<const S*>(p.rows) + column;
  Vector<T> sum[R][W];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int w = 0; w < W; ++w) sum[r][w] = load(vectors + r * p.vector_stride + w * lanes);
  for (int64_t j = 0; j < p.count; ++j, row += p.stride) {
    Vector<T> x[W];
#pragma GCC unroll 8
    for (int w = 0; w < W; ++w)
      x[w] = kEdge ? load_some<T>(row + w * lanes, p.columns - column) : load_wide(row + w * lanes);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const Vector<T> by = broadcast(products[r * kProducts + j]);
#pragma GCC unroll 8
      for (int w = 0; w < W; ++w) sum[r][w] = fma(by, x[w], sum[r][w]);
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int w = 0; w < W; ++w) store(vectors + r * p.vector_stride + w * lanes, sum[r][w]);
}
template <class S, int R, int W>
OPSIN_INLINE void add_columns(const AttentionFew& p, int64_t first, int64_t column) {
  constexpr int lanes = lanes_of<Compute<S>>;
  for (; column + W * lanes <= p.columns; column += W * lanes) add_part<S, R, W, false>(p, first, column);
  if constexpr (W > 1) {
    add_columns<S, R, W / 2>(p, first, column);
  } else if (column < p.columns) {
    add_part<S, R, 1, true>(p, first, column);
  }
}
template <class S>
void add(const AttentionFew& p) {
  for_queries<Compute<S>>(p.queries, [&]<int R>(int64_t first) { add_columns<S, R, 8 / R>(p, first, 0); });
}

template <class T, int R>
OPSIN_INLINE void outer_row(const AttentionFew& p, int64_t first, int64_t j, bool add) {
  constexpr int lanes = lanes_of<T>;
  const T* vectors = static_cast<const T*>(p.vectors) + first * p.vector_stride;
  const T* products = static_cast<const T*>(p.products) + first * kProducts + j;
  T* row = static_cast<T*>(const_cast<void*>(p.rows)) + j * p.stride;
  Vector<T> by[R];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) by[r] = broadcast(products[r * kProducts]);
  for (int64_t c = 0; c < p.columns; c += lanes) {
    const int64_t some = p.columns - c;
    Vector<T> sum = add ? load_some<T>(row + c, some) : Vector<T>{};
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) sum = fma(by[r], load(vectors + r * p.vector_stride + c), sum);
    store_some(row + c, sum, some);
  }
}
template <class T>
void outer(const AttentionFew& p, bool add) {
  for (int64_t j = 0; j < p.count; ++j) {
    for_queries<T>(p.queries, [&]<int R>(int64_t first) { outer_row<T, R>(p, first, j, add || first > 0); });
  }
}

/// exp(x) as for tiles: what has no normal number gives 0. NaN stays.
template <class T>
OPSIN_FN T weight_of(T x) {
  constexpr T kLeast = sizeof(T) == 8 ? T(-708) : T(-87);
  const T power = math::exp_bounded(x < kLeast ? kLeast : x);
  return x < kLeast ? T(0) : power;
}

template <class T>
double softmax(void* scores, int64_t count, void* max, void* sum) {
  constexpr int lanes = lanes_of<T>;
  T* x = static_cast<T*>(scores);
  const int64_t whole = (count + lanes - 1) / lanes * lanes;
  for (int64_t j = count; j < whole; ++j) x[j] = -kInfinity<T>;
  const T before = *static_cast<T*>(max);
  // NaN stays out: it comes back through the exponentials.
  Vector<T> most = broadcast(before);
  for (int64_t j = 0; j < whole; j += lanes) {
    const Vector<T> v = load(x + j);
    most = v > most ? v : most;
  }
  T now = before;
  for (int l = 0; l < lanes; ++l) now = most[l] > now ? most[l] : now;
  // A query that saw nothing yet has exponentials of -inf - 0.
  const T base = now == -kInfinity<T> ? T(0) : now;
#pragma GCC ivdep
  for (int64_t j = 0; j < whole; ++j) x[j] = weight_of(x[j] - base);
  Vector<T> sums{};
  for (int64_t j = 0; j < whole; j += lanes) sums += load(x + j);
  const T factor = weight_of(before - base);
  T total = *static_cast<T*>(sum) * factor;
  for (int l = 0; l < lanes; ++l) total += sums[l];
  *static_cast<T*>(max) = now;
  *static_cast<T*>(sum) = total;
  return static_cast<double>(factor);
}

template <class T>
void slope(void* scores, void* grads, int64_t count, double log_sum, double delta) {
  T* x = static_cast<T*>(scores);
  T* g = static_cast<T*>(grads);
  const T less = static_cast<T>(log_sum), mean = static_cast<T>(delta);
#pragma GCC ivdep
  for (int64_t j = 0; j < count; ++j) {
    x[j] = weight_of(x[j] - less);
    g[j] = x[j] * (g[j] - mean);
  }
}

constexpr AttentionFewTable make_table() {
  AttentionFewTable table{{},
                          {},
                          {outer<float>, outer<double>},
                          {softmax<float>, softmax<double>},
                          {slope<float>, slope<double>}};
  table.dot[static_cast<int>(kFloat16)] = dot<Float16>;
  table.dot[static_cast<int>(kBFloat16)] = dot<BFloat16>;
  table.dot[static_cast<int>(kFloat32)] = dot<float>;
  table.dot[static_cast<int>(kFloat64)] = dot<double>;
  table.add[static_cast<int>(kFloat16)] = add<Float16>;
  table.add[static_cast<int>(kBFloat16)] = add<BFloat16>;
  table.add[static_cast<int>(kFloat32)] = add<float>;
  table.add[static_cast<int>(kFloat64)] = add<double>;
  return table;
}

}  // namespace

const AttentionFewTable& attention_few_table() {
  static constexpr AttentionFewTable table = make_table();
  return table;
}

}  // namespace opsin::cpu::OPSIN_ISA_NS

// Folding loops, compiled once per instruction set. Sums of float32 add groups of four in float32 and the
// groups in float64, so that the error does not grow with the length: widening every element would cost more
// than reading it.
#include "fold_kernels.h"

#include "core/half_rows.h"
#include "core/isa_loops.h"

namespace opsin::cpu::OPSIN_ISA_NS {

namespace {

template <class S>
inline constexpr bool is_float = std::is_floating_point_v<Compute<S>>;
/// What sums and products of S accumulate in.
template <class S>
using Wide = std::conditional_t<is_float<S>, double, int64_t>;
/// What a sum of four S is taken in.
template <class S>
using Near = std::conditional_t<is_float<S> || sizeof(S) >= 4,
                                std::conditional_t<is_float<S>, Compute<S>, int64_t>, int32_t>;

// A fold: its accumulator, one element mapped (the accumulator's type, or the one that a group of four is
// combined in), how two combine, and the result. With a Shift, elements are taken relative to a number per
// output.
template <class S>
struct SumFold {
  using Acc = Wide<S>;
  using Out = std::conditional_t<is_float<S>, S, int64_t>;
  static constexpr Acc kIdentity = 0;
  OPSIN_FN static Near<S> map(Compute<S> x, const FoldArgs&) { return static_cast<Near<S>>(x); }
  template <class T>
  OPSIN_FN static T combine(T a, T b) {
    return a + b;
  }
  OPSIN_FN static Acc result(Acc a, const FoldArgs& args) {
    if constexpr (is_float<S>) {
      return a / args.divisor;
    } else {
      return a;
    }
  }
};

template <class S>
struct ProdFold : SumFold<S> {
  using Acc = Wide<S>;
  static constexpr Acc kIdentity = 1;
  OPSIN_FN static Acc map(Compute<S> x, const FoldArgs&) { return static_cast<Acc>(x); }
  OPSIN_FN static Acc combine(Acc a, Acc b) { return a * b; }
  OPSIN_FN static Acc result(Acc a, const FoldArgs&) { return a; }
};

template <class S>
struct MaxFold {
  using Acc = Compute<S>;
  using Out = S;
  static constexpr Acc kIdentity =
      is_float<S> ? -std::numeric_limits<Acc>::infinity() : std::numeric_limits<Acc>::lowest();
  OPSIN_FN static Acc map(Compute<S> x, const FoldArgs&) { return x; }
  // NaN wins.
  OPSIN_FN static Acc combine(Acc a, Acc b) { return (a > b) | (a != a) ? a : b; }
  OPSIN_FN static Acc pick(Acc a, Acc b) { return b > a ? b : a; }
  OPSIN_FN static Acc result(Acc a, const FoldArgs&) { return a; }
};

template <class S>
struct MinFold : MaxFold<S> {
  using Acc = Compute<S>;
  static constexpr Acc kIdentity =
      is_float<S> ? std::numeric_limits<Acc>::infinity() : std::numeric_limits<Acc>::max();
  OPSIN_FN static Acc combine(Acc a, Acc b) { return (a < b) | (a != a) ? a : b; }
  OPSIN_FN static Acc pick(Acc a, Acc b) { return b < a ? b : a; }
};

template <class S>
struct MaxAbsFold : MaxFold<S> {
  static constexpr Compute<S> kIdentity = 0;
  OPSIN_FN static Compute<S> map(Compute<S> x, const FoldArgs&) { return math::abs(x); }
};

template <class S>
struct MinAbsFold : MinFold<S> {
  OPSIN_FN static Compute<S> map(Compute<S> x, const FoldArgs&) { return math::abs(x); }
};

template <class S>
struct AnyFold {
  using Acc = uint8_t;
  using Out = uint8_t;
  static constexpr Acc kIdentity = 0;
  OPSIN_FN static Acc map(Compute<S> x, const FoldArgs&) { return x != Compute<S>(0); }
  OPSIN_FN static Acc combine(Acc a, Acc b) { return static_cast<Acc>(a | b); }
  OPSIN_FN static Acc result(Acc a, const FoldArgs&) { return a; }
};

template <class S>
struct AllFold : AnyFold<S> {
  static constexpr uint8_t kIdentity = 1;
  OPSIN_FN static uint8_t combine(uint8_t a, uint8_t b) { return static_cast<uint8_t>(a & b); }
};

template <class S>
struct CountNonzeroFold {
  using Acc = int64_t;
  using Out = int64_t;
  static constexpr Acc kIdentity = 0;
  OPSIN_FN static int32_t map(Compute<S> x, const FoldArgs&) { return x != Compute<S>(0); }
  template <class T>
  OPSIN_FN static T combine(T a, T b) {
    return a + b;
  }
  OPSIN_FN static Acc result(Acc a, const FoldArgs&) { return a; }
};

template <class S>
struct NanSumFold : SumFold<S> {
  OPSIN_FN static Compute<S> map(Compute<S> x, const FoldArgs&) { return x == x ? x : Compute<S>(0); }
};

template <class S>
struct SumAbsFold : SumFold<S> {
  OPSIN_FN static Compute<S> map(Compute<S> x, const FoldArgs&) { return math::abs(x); }
};

template <class S>
struct SumSquaresFold : SumFold<S> {
  OPSIN_FN static double map(Compute<S> x, const FoldArgs&) {
    return static_cast<double>(x) * static_cast<double>(x);
  }
  OPSIN_FN static double result(double a, const FoldArgs& args) { return args.root == 2 ? std::sqrt(a) : a; }
};

template <class S>
struct SumPowersFold : SumFold<S> {
  OPSIN_FN static double map(Compute<S> x, const FoldArgs& args) {
    return math::pow(static_cast<double>(math::abs(x)), args.power);
  }
  OPSIN_FN static double result(double a, const FoldArgs& args) {
    return args.root == 1 ? a : math::pow(a, 1 / args.root);
  }
};

template <class S>
struct CenteredSquaresFold : SumFold<S> {
  using Shift = double;
  using StoredShift = double;
  OPSIN_FN static double map(Compute<S> x, double mean, const FoldArgs&) {
    const double d = static_cast<double>(x) - mean;
    return d * d;
  }
  OPSIN_FN static double result(double a, double, const FoldArgs& args) {
    const double v = a / args.divisor;
    return args.root == 2 ? std::sqrt(v) : v;
  }
};

template <class S>
struct LogSumExpFold : SumFold<S> {
  using Shift = Compute<S>;
  using StoredShift = S;
  // An infinite maximum takes no part, so that exp(-inf) sums to 0 and exp(inf) to infinity.
  OPSIN_FN static Compute<S> base(Compute<S> max) {
    return math::abs(max) <= std::numeric_limits<Compute<S>>::max() ? max : Compute<S>(0);
  }
  OPSIN_FN static Compute<S> map(Compute<S> x, Compute<S> max, const FoldArgs&) {
    return math::exp(x - base(max));
  }
  OPSIN_FN static double result(double a, Compute<S> max, const FoldArgs&) {
    return std::log(a) + static_cast<double>(base(max));
  }
};

struct NoShift {};
template <class F>
struct ShiftOf {
  using type = NoShift;
  using stored = NoShift;
};
template <class F>
  requires requires { typename F::Shift; }
struct ShiftOf<F> {
  using type = typename F::Shift;
  using stored = typename F::StoredShift;
};

/// What loops read elements of S as: only float16 has no vector loads in C++.
template <class S>
inline constexpr bool kWidens = std::is_same_v<S, float16>;
template <class S>
using Read = std::conditional_t<kWidens<S>, float, S>;
template <class S>
OPSIN_FN const Read<S>* readable(const S* x, int64_t n, float* buffer) {
  if constexpr (kWidens<S>) {
    widen_half(reinterpret_cast<const uint16_t*>(x), buffer, n);
    return buffer;
  } else {
    return x;
  }
}

template <class F, class T, class Shift>
OPSIN_FN auto map(T x, const Shift* shift, int64_t j, const FoldArgs& args) {
  if constexpr (std::is_same_v<Shift, NoShift>) {
    return F::map(x, args);
  } else {
    return F::map(x, shift[j], args);
  }
}
/// As F::combine. Folds in which NaN wins have a `pick` for inner loops, one instruction, that keeps a where
/// b is NaN; whether there was one is found beside it, and then the elements are combined again.
template <class F, class T>
OPSIN_FN T join(T a, T b) {
  if constexpr (requires { F::pick(a, b); }) {
    return F::pick(a, b);
  } else {
    return F::combine(a, b);
  }
}
template <class F, class T>
inline constexpr bool kWatchesNan =
    std::is_floating_point_v<T> && requires(typename F::Acc a) { F::pick(a, a); };

/// Four elements joined pairwise.
template <class F, class T, class Shift>
OPSIN_FN typename F::Acc fold_four(T a, T b, T c, T d, const Shift* shift, int64_t j, const FoldArgs& args) {
  const auto ab = join<F>(map<F>(a, shift, j, args), map<F>(b, shift, j, args));
  const auto cd = join<F>(map<F>(c, shift, j, args), map<F>(d, shift, j, args));
  return static_cast<typename F::Acc>(join<F>(ab, cd));
}
template <class T>
using Flag = std::conditional_t<sizeof(T) == 8, int64_t, int32_t>;

template <class F>
void init(void* state, int64_t count) {
  auto* acc = static_cast<typename F::Acc*>(state);
  for (int64_t j = 0; j < count; ++j) acc[j] = F::kIdentity;
}

template <class F>
void merge(void* state, const void* other, int64_t count) {
  auto* acc = static_cast<typename F::Acc*>(state);
  const auto* more = static_cast<const typename F::Acc*>(other);
  for (int64_t j = 0; j < count; ++j) acc[j] = F::combine(acc[j], more[j]);
}

template <class F, int kWidth>
OPSIN_FN void halve(typename F::Acc* lanes) {
  for (int j = 0; j < kWidth; ++j) lanes[j] = F::combine(lanes[j], lanes[j + kWidth]);
  if constexpr (kWidth > 1) halve<F, kWidth / 2>(lanes);
}

template <class F, class E, class Shift>
typename F::Acc fold_each(const E* x, int64_t n, const Shift* shift, const FoldArgs& args) {
  typename F::Acc total = F::kIdentity;
  for (int64_t i = 0; i < n; ++i) {
    total = F::combine(total,
                       static_cast<typename F::Acc>(map<F>(static_cast<Compute<E>>(x[i]), shift, 0, args)));
  }
  return total;
}

/// n >= kLanes neighbours in kLanes interleaved parts, combined pairwise.
template <class F, int kLanes, class E, class Shift>
OPSIN_FN typename F::Acc fold_lanes(const E* x, int64_t n, const Shift* shift, const FoldArgs& args) {
  using Acc = typename F::Acc;
  using T = Compute<E>;
  [[maybe_unused]] Flag<T> nan = 0;
  const auto one = [&](int64_t i) __attribute__((always_inline)) {
    const T a = static_cast<T>(x[i]);
    if constexpr (kWatchesNan<F, T>) nan |= a != a;
    return static_cast<Acc>(map<F>(a, shift, 0, args));
  };
  const auto four = [&](int64_t i) __attribute__((always_inline)) {
    const T a = static_cast<T>(x[i]), b = static_cast<T>(x[i + kLanes]),
            c = static_cast<T>(x[i + 2 * kLanes]), d = static_cast<T>(x[i + 3 * kLanes]);
    if constexpr (kWatchesNan<F, T>) nan |= __builtin_isunordered(a, b) | __builtin_isunordered(c, d);
    return fold_four<F>(a, b, c, d, shift, 0, args);
  };
  alignas(64) Acc lanes[kLanes];
  int64_t i = kLanes;
  if (n < 4 * kLanes) {
    for (int j = 0; j < kLanes; ++j) lanes[j] = one(j);
  } else {
    for (int j = 0; j < kLanes; ++j) lanes[j] = four(j);
    for (i = 4 * kLanes; i + 4 * kLanes <= n; i += 4 * kLanes) {
      for (int j = 0; j < kLanes; ++j) lanes[j] = join<F>(lanes[j], four(i + j));
    }
  }
  for (; i + kLanes <= n; i += kLanes) {
    for (int j = 0; j < kLanes; ++j) lanes[j] = join<F>(lanes[j], one(i + j));
  }
  if constexpr (kLanes > 8) {
    for (; i + 8 <= n; i += 8) {
      for (int j = 0; j < 8; ++j) lanes[j] = join<F>(lanes[j], one(i + j));
    }
  }
  // Apart from the lanes, which lie in registers.
  Acc rest = F::kIdentity;
  for (; i < n; ++i) rest = join<F>(rest, one(i));
  if constexpr (kWatchesNan<F, T>) {
    if (nan) return fold_each<F>(x, n, shift, args);
  }
  halve<F, kLanes / 2>(lanes);
  return F::combine(lanes[0], rest);
}

/// Accumulators that stay in registers.
#if defined(__AVX512F__)
constexpr int kLaneBytes = 256;
#else
constexpr int kLaneBytes = 128;
#endif

template <class F, class E, class Shift>
OPSIN_FN typename F::Acc fold_row(const E* x, int64_t n, const Shift* shift, const FoldArgs& args) {
  using Acc = typename F::Acc;
  constexpr int kMany = sizeof(Acc) < 4 ? kLaneBytes / 4 : kLaneBytes / static_cast<int>(sizeof(Acc)),
                kFew = 8;
  if (n >= kMany) return fold_lanes<F, kMany>(x, n, shift, args);
  if (n >= kFew) return fold_lanes<F, kFew>(x, n, shift, args);
  return fold_each<F>(x, n, shift, args);
}

template <class F, class S>
void rows(void* state, const char* data, int64_t count, int64_t step, int64_t n, const void* shifts,
          const FoldArgs& args) {
  constexpr int64_t kBlock = 2048;
  alignas(64) float buffer[kWidens<S> ? kBlock : 1];
  auto* acc = static_cast<typename F::Acc*>(state);
  for (int64_t c = 0; c < count; ++c) {
    const S* x = reinterpret_cast<const S*>(data + c * step);
    typename ShiftOf<F>::type shift{};
    if constexpr (requires { typename F::Shift; }) {
      shift = static_cast<typename F::Shift>(static_cast<const typename F::StoredShift*>(shifts)[c]);
    }
    const int64_t block = kWidens<S> ? kBlock : n;
    for (int64_t i = 0; i < n; i += block) {
      const int64_t m = n - i < block ? n - i : block;
      acc[c] = F::combine(acc[c], fold_row<F>(readable(x + i, m, buffer), m, &shift, args));
    }
  }
}

/// Accumulates rows of `width` <= kMaxWidth elements, four at a time.
constexpr int64_t kMaxWidth = 512;
template <class F, class S, class Shift>
void add_rows(typename F::Acc* acc, const char* data, int64_t width, int64_t step, int64_t n,
              const Shift* shift, const FoldArgs& args) {
  using T = Compute<S>;
  alignas(64) float buffer[4][kWidens<S> ? kMaxWidth : 1];
  const auto row = [&](int64_t r, int k) {
    return readable(reinterpret_cast<const S*>(data + (r + k) * step), width, buffer[k]);
  };
  [[maybe_unused]] Flag<T> nan = 0;
  int64_t r = 0;
  for (; r + 4 <= n; r += 4) {
    const Read<S>*a = row(r, 0), *b = row(r, 1), *c = row(r, 2), *d = row(r, 3);
#pragma GCC ivdep
    for (int64_t j = 0; j < width; ++j) {
      const T at[] = {static_cast<T>(a[j]), static_cast<T>(b[j]), static_cast<T>(c[j]), static_cast<T>(d[j])};
      acc[j] = join<F>(acc[j], fold_four<F>(at[0], at[1], at[2], at[3], shift, j, args));
      if constexpr (kWatchesNan<F, T>) {
        nan |= __builtin_isunordered(at[0], at[1]) | __builtin_isunordered(at[2], at[3]);
      }
    }
  }
  for (r = nan ? 0 : r; r < n; ++r) {
    const Read<S>* a = row(r, 0);
#pragma GCC ivdep
    for (int64_t j = 0; j < width; ++j) {
      acc[j] = F::combine(acc[j], static_cast<typename F::Acc>(map<F>(static_cast<T>(a[j]), shift, j, args)));
    }
  }
}

template <class F, class S>
void columns(void* state, const char* data, int64_t count, int64_t step, int64_t n, const void* shifts,
             const FoldArgs& args) {
  using Acc = typename F::Acc;
  using Shift = typename ShiftOf<F>::type;
  using StoredShift = typename ShiftOf<F>::stored;
  auto* acc = static_cast<Acc*>(state);
  const auto* stored = static_cast<const StoredShift*>(shifts);
  constexpr bool kSame = std::is_same_v<Shift, StoredShift>;
  alignas(64) Shift converted[kSame ? 1 : kMaxWidth];
  const Shift* shift = converted;
  if constexpr (kSame) {
    shift = stored;
  } else {
    for (int64_t j = 0; j < count; ++j) converted[j] = static_cast<Shift>(stored[j]);
  }
  constexpr int64_t kNarrow = 32, kWidth = 128;
  if (count > kNarrow || step != count * static_cast<int64_t>(sizeof(S)) || n < 64) {
    add_rows<F, S>(acc, data, count, step, n, shift, args);
    return;
  }
  // Few outputs: several dense rows together make one wide one.
  alignas(64) Acc wide[kWidth];
  alignas(64) Shift wide_shift[kWidth];
  const int64_t times = kWidth / count, width = times * count;
  for (int64_t j = 0; j < width; ++j) {
    wide[j] = F::kIdentity;
    if constexpr (requires { typename F::Shift; }) wide_shift[j] = shift[j % count];
  }
  const int64_t groups = n / times;
  add_rows<F, S>(wide, data, width, times * step, groups, wide_shift, args);
  for (int64_t g = 0; g < times; ++g) {
    for (int64_t j = 0; j < count; ++j) acc[j] = F::combine(acc[j], wide[g * count + j]);
  }
  add_rows<F, S>(acc, data + groups * times * step, count, step, n - groups * times, shift, args);
}

template <class F, class Out>
void finish(const void* state, char* data, int64_t count, const void* shifts, const FoldArgs& args) {
  const auto* acc = static_cast<const typename F::Acc*>(state);
  auto* y = reinterpret_cast<Out*>(data);
  for (int64_t j = 0; j < count; ++j) {
    if constexpr (requires { typename F::Shift; }) {
      const auto shift =
          static_cast<typename F::Shift>(static_cast<const typename F::StoredShift*>(shifts)[j]);
      y[j] = static_cast<Out>(static_cast<Compute<Out>>(F::result(acc[j], shift, args)));
    } else {
      y[j] = static_cast<Out>(static_cast<Compute<Out>>(F::result(acc[j], args)));
    }
  }
}

template <class F, class S>
constexpr FoldKernel kernel_of() {
  FoldKernel kernel{sizeof(typename F::Acc),    init<F>, rows<F, S>, columns<F, S>, merge<F>,
                    finish<F, typename F::Out>, nullptr};
  if constexpr (is_float<S> && std::is_same_v<typename F::Out, S>) kernel.finish_wide = finish<F, double>;
  return kernel;
}

template <template <class> class F>
constexpr void fill_floating(FoldTable& table, Fold fold) {
  auto& row = table.kernel[static_cast<int>(fold)];
  row[static_cast<int>(kFloat16)] = kernel_of<F<float16>, float16>();
  row[static_cast<int>(kBFloat16)] = kernel_of<F<bfloat16>, bfloat16>();
  row[static_cast<int>(kFloat32)] = kernel_of<F<float>, float>();
  row[static_cast<int>(kFloat64)] = kernel_of<F<double>, double>();
}

template <template <class> class F>
constexpr void fill_real(FoldTable& table, Fold fold) {
  fill_floating<F>(table, fold);
  auto& row = table.kernel[static_cast<int>(fold)];
  row[static_cast<int>(kUInt8)] = kernel_of<F<uint8_t>, uint8_t>();
  row[static_cast<int>(kBool)] = row[static_cast<int>(kUInt8)];
  row[static_cast<int>(kInt8)] = kernel_of<F<int8_t>, int8_t>();
  row[static_cast<int>(kInt16)] = kernel_of<F<int16_t>, int16_t>();
  row[static_cast<int>(kInt32)] = kernel_of<F<int32_t>, int32_t>();
  row[static_cast<int>(kInt64)] = kernel_of<F<int64_t>, int64_t>();
}

constexpr FoldTable make_table() {
  FoldTable table{};
#define OPSIN_ROW(Name, dtypes) fill_##dtypes<Name##Fold>(table, Fold::Name);
  OPSIN_FOLDS(OPSIN_ROW)
#undef OPSIN_ROW
  return table;
}

}  // namespace

const FoldTable& fold_table() {
  static constexpr FoldTable table = make_table();
  return table;
}

}  // namespace opsin::cpu::OPSIN_ISA_NS

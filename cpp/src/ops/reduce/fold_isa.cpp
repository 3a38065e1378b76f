// Folding loops, compiled once per instruction set. Sums of floating-point values accumulate in float64, so a
// float32 result is off by its one rounding, however long the sum.
#include "fold_kernels.h"

#include "core/isa_loops.h"

namespace opsin::cpu::OPSIN_ISA_NS {

namespace {

template <class S>
inline constexpr bool is_float = std::is_floating_point_v<Compute<S>>;
/// What sums and products of S accumulate in.
template <class S>
using Wide = std::conditional_t<is_float<S>, double, int64_t>;

// A fold: its accumulator, the accumulator of one element, how two combine, and the result. kShift says
// whether the elements are taken relative to a number per output.
template <class S>
struct SumFold {
  using Acc = Wide<S>;
  using Out = std::conditional_t<is_float<S>, S, int64_t>;
  static constexpr Acc kIdentity = 0;
  OPSIN_FN static Acc map(Compute<S> x, const FoldArgs&) { return static_cast<Acc>(x); }
  OPSIN_FN static Acc combine(Acc a, Acc b) { return a + b; }
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
  OPSIN_FN static Acc result(Acc a, const FoldArgs&) { return a; }
};

template <class S>
struct MinFold : MaxFold<S> {
  using Acc = Compute<S>;
  static constexpr Acc kIdentity =
      is_float<S> ? std::numeric_limits<Acc>::infinity() : std::numeric_limits<Acc>::max();
  OPSIN_FN static Acc combine(Acc a, Acc b) { return (a < b) | (a != a) ? a : b; }
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
  OPSIN_FN static Acc map(Compute<S> x, const FoldArgs&) { return x != Compute<S>(0); }
  OPSIN_FN static Acc combine(Acc a, Acc b) { return a + b; }
  OPSIN_FN static Acc result(Acc a, const FoldArgs&) { return a; }
};

template <class S>
struct NanSumFold : SumFold<S> {
  OPSIN_FN static double map(Compute<S> x, const FoldArgs&) { return x == x ? static_cast<double>(x) : 0.0; }
};

template <class S>
struct SumAbsFold : SumFold<S> {
  OPSIN_FN static double map(Compute<S> x, const FoldArgs&) { return static_cast<double>(math::abs(x)); }
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
  using Shift = S;
  // An infinite maximum takes no part, so that exp(-inf) sums to 0 and exp(inf) to infinity.
  OPSIN_FN static Compute<S> base(Compute<S> max) {
    return math::abs(max) <= std::numeric_limits<Compute<S>>::max() ? max : Compute<S>(0);
  }
  OPSIN_FN static double map(Compute<S> x, S max, const FoldArgs&) {
    return static_cast<double>(math::exp(x - base(static_cast<Compute<S>>(max))));
  }
  OPSIN_FN static double result(double a, S max, const FoldArgs&) {
    return std::log(a) + static_cast<double>(base(static_cast<Compute<S>>(max)));
  }
};

struct NoShift {};
template <class F>
struct ShiftOf {
  using type = NoShift;
};
template <class F>
  requires requires { typename F::Shift; }
struct ShiftOf<F> {
  using type = typename F::Shift;
};

template <class F, class S, class Shift>
OPSIN_FN typename F::Acc map(S x, const Shift* shift, int64_t j, const FoldArgs& args) {
  if constexpr (std::is_same_v<Shift, NoShift>) {
    return F::map(static_cast<Compute<S>>(x), args);
  } else {
    return F::map(static_cast<Compute<S>>(x), shift[j], args);
  }
}

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

/// One row in kLanes interleaved parts, combined pairwise.
template <class F, int kLanes, class S, class Shift>
OPSIN_FN typename F::Acc fold_lanes(const S* x, int64_t n, Shift shift, const FoldArgs& args) {
  alignas(64) typename F::Acc lanes[kLanes];
  for (int j = 0; j < kLanes; ++j) lanes[j] = F::kIdentity;
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int j = 0; j < kLanes; ++j) lanes[j] = F::combine(lanes[j], map<F>(x[i + j], &shift, 0, args));
  }
  for (int64_t j = 0; i + j < n; ++j) lanes[j] = F::combine(lanes[j], map<F>(x[i + j], &shift, 0, args));
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int j = 0; j < width; ++j) lanes[j] = F::combine(lanes[j], lanes[j + width]);
  }
  return lanes[0];
}

template <class F, class S>
void rows(void* state, const char* data, int64_t count, int64_t step, int64_t n, const void* shifts,
          const FoldArgs& args) {
  using Shift = typename ShiftOf<F>::type;
  auto* acc = static_cast<typename F::Acc*>(state);
  for (int64_t c = 0; c < count; ++c) {
    const S* x = reinterpret_cast<const S*>(data + c * step);
    Shift shift{};
    if constexpr (!std::is_same_v<Shift, NoShift>) shift = static_cast<const Shift*>(shifts)[c];
    typename F::Acc total = F::kIdentity;
    if (n >= 256) {
      total = fold_lanes<F, 64>(x, n, shift, args);
    } else if (n >= 16) {
      total = fold_lanes<F, 8>(x, n, shift, args);
    } else {
      for (int64_t i = 0; i < n; ++i) total = F::combine(total, map<F>(x[i], &shift, 0, args));
    }
    acc[c] = F::combine(acc[c], total);
  }
}

/// Accumulates rows of `width` elements, four at a time to touch the accumulators less often.
template <class F, class S, class Shift>
OPSIN_FN void add_rows(typename F::Acc* acc, const char* data, int64_t width, int64_t step, int64_t n,
                       const Shift* shift, const FoldArgs& args) {
  int64_t r = 0;
  for (; r + 4 <= n; r += 4) {
    const S* a = reinterpret_cast<const S*>(data + r * step);
    const S* b = reinterpret_cast<const S*>(data + (r + 1) * step);
    const S* c = reinterpret_cast<const S*>(data + (r + 2) * step);
    const S* d = reinterpret_cast<const S*>(data + (r + 3) * step);
#pragma GCC ivdep
    for (int64_t j = 0; j < width; ++j) {
      const auto ab = F::combine(map<F>(a[j], shift, j, args), map<F>(b[j], shift, j, args));
      const auto cd = F::combine(map<F>(c[j], shift, j, args), map<F>(d[j], shift, j, args));
      acc[j] = F::combine(acc[j], F::combine(ab, cd));
    }
  }
  for (; r < n; ++r) {
    const S* a = reinterpret_cast<const S*>(data + r * step);
#pragma GCC ivdep
    for (int64_t j = 0; j < width; ++j) acc[j] = F::combine(acc[j], map<F>(a[j], shift, j, args));
  }
}

template <class F, class S>
void columns(void* state, const char* data, int64_t count, int64_t step, int64_t n, const void* shifts,
             const FoldArgs& args) {
  using Acc = typename F::Acc;
  using Shift = typename ShiftOf<F>::type;
  auto* acc = static_cast<Acc*>(state);
  const auto* shift = static_cast<const Shift*>(shifts);
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
    if constexpr (!std::is_same_v<Shift, NoShift>) wide_shift[j] = shift[j % count];
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
  using Shift = typename ShiftOf<F>::type;
  const auto* acc = static_cast<const typename F::Acc*>(state);
  auto* y = reinterpret_cast<Out*>(data);
  for (int64_t j = 0; j < count; ++j) {
    if constexpr (std::is_same_v<Shift, NoShift>) {
      y[j] = static_cast<Out>(static_cast<Compute<Out>>(F::result(acc[j], args)));
    } else {
      y[j] = static_cast<Out>(
          static_cast<Compute<Out>>(F::result(acc[j], static_cast<const Shift*>(shifts)[j], args)));
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
  row[static_cast<int>(kBool)] = kernel_of<F<bool>, bool>();
  row[static_cast<int>(kUInt8)] = kernel_of<F<uint8_t>, uint8_t>();
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

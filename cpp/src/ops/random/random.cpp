// Random tensors. Value i of a call is a function of (seed, offset, i) alone (Philox), so that neither
// threads nor devices change it.
#include "random_kernels.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <opsin/ops/binary.h>
#include <opsin/ops/copy.h>
#include <opsin/ops/creation.h>
#include <opsin/ops/random.h>
#include <opsin/ops/view.h>

#include "core/call.h"
#include "core/dispatch.h"
#include "core/philox.h"
#include "core/promotion.h"
#include "core/registry.h"
#include "cpu/thread_pool.h"
#include "ops/creation/options.h"

namespace opsin {

namespace {

constexpr int64_t kBlockGrain = 8192;

Generator& or_default(Generator* generator) { return generator ? *generator : default_generator(); }

/// Calls `f(first, n, words)` for runs of values [first, first + n) of [0, count), a block of four words for
/// every kPerBlock values; words points at the first one's own (32 bits each for kPerBlock = 4, two of them
/// for 2).
template <int kPerBlock, class F>
void for_each_run(int64_t count, const RandomState& state, F f) {
  // The words of a run stay in the first cache.
  constexpr int64_t kRun = 256;
  const auto draw = OPSIN_ISA_SELECT(cpu::random_table).words;
  cpu::parallel_for((count + kPerBlock - 1) / kPerBlock, kBlockGrain, [&](int64_t begin, int64_t end) {
    alignas(64) uint32_t words[4 * kRun];
    for (; begin < end; begin += kRun) {
      const int64_t blocks = std::min(kRun, end - begin), first = begin * kPerBlock;
      draw(state.seed, state.offset + static_cast<uint64_t>(begin), blocks, words);
      f(first, std::min(blocks * kPerBlock, count - first), words);
    }
  });
}

template <int kPerBlock>
RandomState reserve(int64_t count, Generator* generator) {
  return or_default(generator).reserve(static_cast<uint64_t>((count + kPerBlock - 1) / kPerBlock));
}

/// The same for single values: `f(i, words)`.
template <int kPerBlock, class F>
void for_each_value(int64_t count, Generator* generator, F f) {
  for_each_run<kPerBlock>(count, reserve<kPerBlock>(count, generator),
                          [&](int64_t first, int64_t n, const uint32_t* words) {
                            for (int64_t i = 0; i < n; ++i) f(first + i, words + i * (4 / kPerBlock));
                          });
}

/// Fills `data` with what `f(words, n, values)` makes from runs of words; the values of 16-bit types are
/// floats.
template <int kPerBlock, class T, class F>
void fill_runs(T* data, int64_t count, Generator* generator, F f) {
  for_each_run<kPerBlock>(count, reserve<kPerBlock>(count, generator),
                          [&](int64_t first, int64_t n, const uint32_t* words) {
                            if constexpr (std::is_same_v<T, compute_t<T>>) {
                              f(words, n, data + first);
                            } else {
                              float values[1024];
                              f(words, n, values);
                              for (int64_t i = 0; i < n; ++i) data[first + i] = static_cast<T>(values[i]);
                            }
                          });
}

/// Runs `write` on `self` itself if it is dense, else on a dense stand-in that is copied back; in-place rules
/// apply.
template <class F>
Tensor overwrite(const Tensor& self, const char* op, F write) {
  const bool record = GradMode::is_enabled() && self.requires_grad();
  check_inference(self, op);
  check_no_overlap(self, op);
  if (record) check_recordable(self, op);
  const Tensor dense = self.is_contiguous() ? self.detach() : empty(self.sizes(), self.dtype());
  write(dense);
  if (!self.is_contiguous()) copy_(self.detach(), dense);
  // What was there before gets no gradient.
  if (record) {
    copy_(self, clone(dense));
  } else {
    self.bump_version();
  }
  return self;
}

template <class T>
void fill_uniform(T* data, int64_t count, double from, double range, Generator* generator) {
  const auto& kernels = OPSIN_ISA_SELECT(cpu::random_table);
  if constexpr (std::is_same_v<T, double>) {
    fill_runs<2>(data, count, generator, [&](const uint32_t* words, int64_t n, double* values) {
      kernels.uniform_double(words, n, from, range, values);
    });
  } else {
    // As many bits as T holds exactly, so that rounding never gives 1.
    constexpr int kBits = std::is_same_v<T, float> ? 24 : std::is_same_v<T, float16> ? 11 : 8;
    fill_runs<4>(data, count, generator, [&](const uint32_t* words, int64_t n, float* values) {
      kernels.uniform_float(words, n, kBits, from, range, values);
    });
  }
}

/// A pair of words gives a pair of normals (two pairs in float64).
template <class T>
void fill_normal(T* data, int64_t count, double mean, double std, Generator* generator) {
  const auto& kernels = OPSIN_ISA_SELECT(cpu::random_table);
  if constexpr (std::is_same_v<T, double>) {
    fill_runs<2>(data, count, generator, [&](const uint32_t* words, int64_t n, double* values) {
      kernels.normal_double(words, n, mean, std, values);
    });
  } else {
    fill_runs<4>(data, count, generator, [&](const uint32_t* words, int64_t n, float* values) {
      kernels.normal_float(words, n, mean, std, values);
    });
  }
}

/// y = keep ? x / (1 - p) : 0, where keep is drawn from (seed, offset) for each position in memory order. The
/// gradient is the same op on grad_y, so nothing but the two numbers is saved.
struct Dropout {
  static constexpr const char* kName = "dropout";
  struct Params {
    double p;
    RandomState state;
    bool channels_last;
  };
  static void forward_into(Tensor& y, const Params& params, const Tensor& input) {
    const Tensor x = in_layout(input.detach(), params.channels_last);
    const Tensor out =
        y.defined() && is_in_layout(y, params.channels_last) ? y.detach() : allocate(x, params.channels_last);
    const auto kernel = OPSIN_ISA_SELECT(cpu::random_table).dropout[static_cast<int>(x.dtype())];
    if (!kernel) detail::raise_unsupported(kName, x.dtype());
    // Kept where the upper 24 bits of the word, as a fraction, are not below p rounded to float32.
    const auto least = static_cast<uint32_t>(std::ceil(static_cast<float>(params.p) * 0x1p24f));
    const double scale = params.p == 1 ? 0 : 1 / (1 - params.p);
    const auto size = static_cast<int64_t>(item_size(x.dtype()));
    const char* from = x.impl()->physical_data();
    char* to = out.impl()->physical_data();
    for_each_run<4>(x.numel(), params.state, [&](int64_t first, int64_t n, const uint32_t* words) {
      kernel(words, n, least, scale, from + first * size, to + first * size);
    });
    if (!y.defined()) {
      y = out;
    } else if (out.impl()->storage.get() != y.impl()->storage.get()) {
      copy_(y.detach(), out);
    }
  }
  static void backward(Backward& ctx, const Params& params) { ctx.set(0, call<Dropout>(params, ctx.grad())); }

 private:
  static bool is_in_layout(const Tensor& x, bool channels_last) {
    return x.is_contiguous() && x.impl()->is_hidden() == channels_last;
  }
  static Tensor allocate(const Tensor& x, bool channels_last) {
    return channels_last ? empty_channels_last(x.sizes(), x.dtype(), x.device())
                         : empty(x.sizes(), x.dtype(), x.device());
  }
  static Tensor in_layout(const Tensor& x, bool channels_last) {
    if (is_in_layout(x, channels_last)) return x;
    const Tensor y = allocate(x, channels_last);
    copy_(y, x);
    return y;
  }
};

void check_probability(double p, const char* op) {
  OPSIN_CHECK(ValueError, p >= 0 && p <= 1, op, ": dropout probability has to be between 0 and 1, but got ",
              p);
}

/// Whole channels [N, C] are kept or zeroed.
Tensor channel_dropout(const Tensor& input, double p, bool training, bool inplace, int64_t spatial,
                       const char* op) {
  check_probability(p, op);
  OPSIN_CHECK(ShapeError, input.dim() == spatial + 1 || input.dim() == spatial + 2, op,
              ": expected input of rank ", spatial + 1, " or ", spatial + 2, ", got ", str(input.sizes()));
  if (!training || p == 0) return input;
  Dims sizes(input.sizes().size(), 1);
  const size_t kept = input.sizes().size() - static_cast<size_t>(spatial);
  for (size_t i = 0; i < kept; ++i) sizes[i] = input.sizes()[i];
  const Tensor mask = dropout(ones(sizes, input.dtype()), p);
  return inplace ? mul_(input, mask) : mul(input, mask);
}
Tensor dropout1d(const Tensor& input, double p, bool training, bool inplace) {
  return channel_dropout(input, p, training, inplace, 1, "dropout1d");
}
Tensor dropout2d(const Tensor& input, double p, bool training, bool inplace) {
  return channel_dropout(input, p, training, inplace, 2, "dropout2d");
}
Tensor dropout3d(const Tensor& input, double p, bool training, bool inplace) {
  return channel_dropout(input, p, training, inplace, 3, "dropout3d");
}

using OptDType = std::optional<DType>;
using OptDevice = std::optional<Device>;

Tensor rand_schema(IntSpan size, Generator* generator, OptDType dtype, OptDevice device, bool requires_grad) {
  (void)count_elements(size, "rand");
  return finish(rand(size, dtype.value_or(default_dtype()), generator), device, requires_grad);
}
Tensor randn_schema(IntSpan size, Generator* generator, OptDType dtype, OptDevice device,
                    bool requires_grad) {
  (void)count_elements(size, "randn");
  return finish(randn(size, dtype.value_or(default_dtype()), generator), device, requires_grad);
}
Tensor randint_schema(int64_t low, int64_t high, IntSpan size, Generator* generator, OptDType dtype,
                      OptDevice device, bool requires_grad) {
  return finish(randint(low, high, size, dtype.value_or(kInt64), generator), device, requires_grad);
}
Tensor randint_high(int64_t high, IntSpan size, Generator* generator, OptDType dtype, OptDevice device,
                    bool requires_grad) {
  return randint_schema(0, high, size, generator, dtype, device, requires_grad);
}
Tensor randperm_schema(int64_t n, Generator* generator, OptDType dtype, OptDevice device,
                       bool requires_grad) {
  return finish(randperm(n, dtype.value_or(kInt64), generator), device, requires_grad);
}
Tensor bernoulli_p(const Tensor& self, double p, Generator* generator) {
  return bernoulli_(empty(self.sizes(), self.dtype()), p, generator);
}
Tensor bernoulli_tensor_(const Tensor& self, const Tensor& p, Generator* generator) {
  return copy_(self, bernoulli(expand(p, self.sizes()), generator));
}
Tensor normal_size(double mean, double std, IntSpan size, Generator* generator, OptDType dtype,
                   OptDevice device, bool requires_grad) {
  const Tensor y = normal_(empty(size, dtype.value_or(default_dtype())), mean, std, generator);
  return finish(y, device, requires_grad);
}
Tensor normal_tensor(const Tensor& mean, const Tensor& std, Generator* generator) {
  const NoGradGuard no_grad;
  const DType dtype = floating_type(result_type({&mean, &std}));
  const Tensor noise = randn(broadcast_shapes(mean.sizes(), std.sizes(), "normal"), dtype, generator);
  return add(mul(noise, std), mean);
}
/// Integers in [from, to); for floating point the range in which every integer is exact.
Tensor random_(const Tensor& self, int64_t from, std::optional<int64_t> to, Generator* generator) {
  const int64_t limits[kNumDTypes] = {2,         256,  128, 32768,         int64_t{1} << 31,
                                      INT64_MAX, 2049, 257, (1 << 24) + 1, (int64_t{1} << 53) + 1};
  const int64_t end = to.value_or(limits[static_cast<int>(self.dtype())]);
  OPSIN_CHECK(Error, from < end, "random_: expects 'from' to be less than 'to', but got from=", from,
              " >= to=", end);
  return overwrite(self, "random_",
                   [&](const Tensor& y) { copy_(y, randint(from, end, y.sizes(), kInt64, generator)); });
}
Tensor random_to_(const Tensor& self, int64_t to, Generator* generator) {
  return random_(self, 0, to, generator);
}

/// `num_samples` column numbers for each row of probabilities [n] or [rows, n].
Tensor multinomial(const Tensor& self, int64_t num_samples, bool replacement, Generator* generator) {
  OPSIN_CHECK(ShapeError, self.dim() == 1 || self.dim() == 2,
              "multinomial: expected probabilities [n] or [rows, n], got ", str(self.sizes()));
  OPSIN_CHECK(Error, is_floating_point(self.dtype()),
              "multinomial: expects floating-point probabilities, got ", name(self.dtype()));
  const int64_t n = self.size(-1), rows = self.dim() == 2 ? self.sizes()[0] : 1;
  OPSIN_CHECK(Error, num_samples > 0, "multinomial: cannot sample num_samples <= 0 samples, got ",
              num_samples);
  OPSIN_CHECK(Error, replacement || num_samples <= n, "multinomial: cannot sample num_samples ", num_samples,
              " > ", n, " categories without replacement");
  const Tensor weights = contiguous(to(self.detach(), kFloat64));
  const double* w = weights.data<double>();
  const Tensor y = empty({rows, num_samples}, kInt64);
  int64_t* out = y.mutable_data<int64_t>();
  const Tensor draws = rand(Dims{rows, replacement ? num_samples : n}, kFloat64, generator);
  const double* u = draws.data<double>();
  std::vector<double> cumulative(static_cast<size_t>(n));
  std::vector<std::pair<double, int64_t>> keys(static_cast<size_t>(n));
  for (int64_t row = 0; row < rows; ++row, w += n, u += replacement ? num_samples : n, out += num_samples) {
    double total = 0;
    int64_t positive = 0;
    for (int64_t i = 0; i < n; ++i) {
      OPSIN_CHECK(Error, w[i] >= 0 && std::isfinite(w[i]),
                  "multinomial: probability tensor contains either `inf`, `nan` or element < 0, got ", w[i],
                  " in row ", row);
      cumulative[static_cast<size_t>(i)] = total += w[i];
      positive += w[i] > 0;
    }
    OPSIN_CHECK(Error, total > 0 && (replacement || positive >= num_samples),
                "multinomial: invalid multinomial distribution (sum of probabilities ", total, ", ", positive,
                " positive ones, ", num_samples, " samples) in row ", row);
    if (replacement) {
      for (int64_t s = 0; s < num_samples; ++s) {
        auto found = std::upper_bound(cumulative.begin(), cumulative.end(), u[s] * total);
        if (found == cumulative.end()) --found;
        out[s] = found - cumulative.begin();
      }
      continue;
    }
    // The smallest of exponential waiting times with these rates are a sample without replacement.
    for (int64_t i = 0; i < n; ++i) {
      const double wait = w[i] > 0 ? -std::log1p(-u[i]) / w[i] : std::numeric_limits<double>::infinity();
      keys[static_cast<size_t>(i)] = {wait, i};
    }
    std::partial_sort(keys.begin(), keys.begin() + num_samples, keys.end());
    for (int64_t s = 0; s < num_samples; ++s) out[s] = keys[static_cast<size_t>(s)].second;
  }
  return self.dim() == 2 ? y : select(y, 0, 0);
}

}  // namespace

Tensor uniform_(const Tensor& self, double from, double to, Generator* generator) {
  OPSIN_CHECK(Error, from <= to, "uniform_: expects to return a [from, to) range, but found from=", from,
              " > to=", to);
  return overwrite(self, "uniform_", [&](const Tensor& y) {
    dispatch_floating(y.dtype(), "uniform_", [&]<class T>() {
      fill_uniform(y.mutable_data<T>(), y.numel(), from, to - from, generator);
    });
  });
}

Tensor normal_(const Tensor& self, double mean, double std, Generator* generator) {
  OPSIN_CHECK(Error, std >= 0, "normal_: expects std >= 0.0, but found std ", std);
  return overwrite(self, "normal_", [&](const Tensor& y) {
    dispatch_floating(y.dtype(), "normal_",
                      [&]<class T>() { fill_normal(y.mutable_data<T>(), y.numel(), mean, std, generator); });
  });
}

Tensor bernoulli_(const Tensor& self, double p, Generator* generator) {
  OPSIN_CHECK(Error, p >= 0 && p <= 1, "bernoulli_: expects p to be in [0, 1], but got p=", p);
  return overwrite(self, "bernoulli_", [&](const Tensor& y) {
    dispatch_real(y.dtype(), "bernoulli_", [&]<class T>() {
      T* data = y.mutable_data<T>();
      // As integers: the product is exact.
      const auto limit = static_cast<uint32_t>(std::ceil(p * 0x1p24));
      for_each_run<4>(y.numel(), reserve<4>(y.numel(), generator),
                      [&](int64_t first, int64_t n, const uint32_t* words) {
                        for (int64_t i = 0; i < n; ++i) {
                          data[first + i] = static_cast<T>((words[i] >> 8) < limit ? 1.0f : 0.0f);
                        }
                      });
    });
  });
}

Tensor bernoulli(const Tensor& self, Generator* generator) {
  const Tensor p = contiguous(self.detach());
  const Tensor y = empty(p.sizes(), p.dtype());
  dispatch_floating(p.dtype(), "bernoulli", [&]<class T>() {
    const T* from = p.data<T>();
    T* to = y.mutable_data<T>();
    for_each_value<4>(p.numel(), generator, [&](int64_t i, const uint32_t* words) {
      const auto probability = static_cast<double>(from[i]);
      OPSIN_CHECK(Error, probability >= 0 && probability <= 1,
                  "bernoulli: Expected p_in >= 0 && p_in <= 1, got ", probability);
      to[i] = Scalar(static_cast<double>(philox::uniform_float(words[0])) < probability).to<T>();
    });
  });
  return y;
}

Tensor rand(IntSpan size, DType dtype, Generator* generator) {
  return uniform_(empty(size, dtype), 0, 1, generator);
}
Tensor randn(IntSpan size, DType dtype, Generator* generator) {
  return normal_(empty(size, dtype), 0, 1, generator);
}

Tensor randint(int64_t low, int64_t high, IntSpan size, DType dtype, Generator* generator) {
  OPSIN_CHECK(Error, low < high, "randint: from should be < to, but got ", low, " >= ", high);
  const Tensor y = empty(size, dtype);
  const uint64_t range = static_cast<uint64_t>(high) - static_cast<uint64_t>(low);
  dispatch_real(dtype, "randint", [&]<class T>() {
    T* data = y.mutable_data<T>();
    const auto fill = [&](auto limit) {
      for_each_run<2>(y.numel(), reserve<2>(y.numel(), generator),
                      [=](int64_t first, int64_t n, const uint32_t* words) {
                        for (int64_t i = 0; i < n; ++i) {
                          const uint64_t value =
                              philox::uniform_integer(philox::join(words[2 * i], words[2 * i + 1]), limit);
                          const auto integer = static_cast<int64_t>(static_cast<uint64_t>(low) + value);
                          data[first + i] = Scalar(integer).to<T>();
                        }
                      });
    };
    // Known to be small, the range needs half of the products.
    if (range <= UINT32_MAX) {
      fill(static_cast<uint32_t>(range));
    } else {
      fill(range);
    }
  });
  return y;
}

Tensor randperm(int64_t n, DType dtype, Generator* generator) {
  OPSIN_CHECK(Error, n >= 0, "randperm: n must be non-negative, got ", n);
  const Tensor order = empty({n}, kInt64);
  int64_t* data = order.mutable_data<int64_t>();
  for (int64_t i = 0; i < n; ++i) data[i] = i;
  // Fisher and Yates.
  const RandomState state = or_default(generator).reserve(static_cast<uint64_t>(n));
  for (int64_t i = n - 1; i > 0; --i) {
    const philox::Block words = philox::block(state.seed, state.offset + static_cast<uint64_t>(i));
    const uint64_t j =
        philox::uniform_integer(philox::join(words.word[0], words.word[1]), static_cast<uint64_t>(i) + 1);
    std::swap(data[i], data[j]);
  }
  return to(order, dtype);
}

Tensor dropout(const Tensor& input, double p, bool training, bool inplace) {
  check_probability(p, "dropout");
  if (!training || p == 0) return input;
  const bool channels_last = input.is_contiguous() && input.impl()->is_hidden();
  const RandomState state = default_generator().reserve(static_cast<uint64_t>((input.numel() + 3) / 4));
  const Dropout::Params params{p, state, channels_last};
  return inplace ? call_inplace<Dropout>(params, input) : call<Dropout>(params, input);
}

void register_random(Registry& registry) {
#define OPSIN_OPTIONS \
  "Generator? generator=None, dtype? dtype=None, device? device=None, bool requires_grad=False"
  registry.add<&rand_schema>("rand(int[]... size, *, " OPSIN_OPTIONS ") -> Tensor",
                             "Uniform numbers in [0, 1).");
  registry.add<&randn_schema>("randn(int[]... size, *, " OPSIN_OPTIONS ") -> Tensor",
                              "Standard normal numbers.");
  registry.add<&randint_high>("randint(int high, int[] size, *, " OPSIN_OPTIONS ") -> Tensor",
                              "Integers in [0, high).");
  registry.add<&randint_schema>("randint(int low, int high, int[] size, *, " OPSIN_OPTIONS ") -> Tensor",
                                "Integers in [low, high).");
  registry.add<&randperm_schema>("randperm(int n, *, " OPSIN_OPTIONS ") -> Tensor",
                                 "0 ... n - 1 in random order.");
  registry.add<&bernoulli>("bernoulli(Tensor self, *, Generator? generator=None) -> Tensor",
                           "1 with the probability that each element gives, else 0.");
  registry.add<&bernoulli_p>("bernoulli(Tensor self, float p, *, Generator? generator=None) -> Tensor",
                             "1 with probability p, else 0, in the shape of `self`.");
  registry.add<&bernoulli_>(
      "Tensor.bernoulli_(Tensor self, float p=0.5, *, Generator? generator=None) -> Tensor",
      "Overwrites this tensor with 1 with probability p, else 0.");
  registry.add<&bernoulli_tensor_>(
      "Tensor.bernoulli_(Tensor self, Tensor p, *, Generator? generator=None) -> Tensor",
      "Overwrites this tensor with 1 with the given probabilities, else 0.");
  registry.add<&uniform_>(
      "Tensor.uniform_(Tensor self, float from=0.0, float to=1.0, *, Generator? generator=None) -> Tensor",
      "Overwrites this tensor with numbers uniform in [from, to).");
  registry.add<&normal_>(
      "Tensor.normal_(Tensor self, float mean=0.0, float std=1.0, *, Generator? generator=None) -> Tensor",
      "Overwrites this tensor with normal numbers.");
  registry.add<&normal_size>("normal(float mean, float std, int[] size, *, " OPSIN_OPTIONS ") -> Tensor",
                             "Normal numbers of the given size.");
#undef OPSIN_OPTIONS
  registry.add<&normal_tensor>(
      "normal(Operand mean, Operand std=1.0, *, Generator? generator=None) -> Tensor",
      "Normal numbers with mean and standard deviation for each element.");
  registry.add<&random_to_>("Tensor.random_(Tensor self, int to, *, Generator? generator=None) -> Tensor",
                            "Overwrites this tensor with integers in [0, to).");
  registry.add<&random_>(
      "Tensor.random_(Tensor self, int from=0, int? to=None, *, Generator? generator=None) -> Tensor",
      "Overwrites this tensor with integers in [from, to); all that the dtype holds exactly if `to` is not "
      "given.");
  registry.add<&multinomial>(
      "multinomial(Tensor self, int num_samples, bool replacement=False, *, Generator? generator=None) -> "
      "Tensor",
      "`num_samples` column numbers for each row of weights [n] or [rows, n].");
  registry.add<&dropout>(
      "nn.functional.dropout(Tensor input, float p=0.5, bool training=True, bool inplace=False) -> Tensor",
      "In training, zeroes each element with probability p and multiplies the others by 1 / (1 - p).");
  registry.add<&dropout1d>(
      "nn.functional.dropout1d(Tensor input, float p=0.5, bool training=True, bool inplace=False) -> Tensor",
      "dropout() of whole channels of input [N, C, L] or [C, L].");
  registry.add<&dropout2d>(
      "nn.functional.dropout2d(Tensor input, float p=0.5, bool training=True, bool inplace=False) -> Tensor",
      "dropout() of whole channels of input [N, C, H, W] or [C, H, W].");
  registry.add<&dropout3d>(
      "nn.functional.dropout3d(Tensor input, float p=0.5, bool training=True, bool inplace=False) -> Tensor",
      "dropout() of whole channels of input [N, C, D, H, W] or [C, D, H, W].");
}

}  // namespace opsin

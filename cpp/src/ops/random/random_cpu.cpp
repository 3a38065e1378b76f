// Random numbers on the CPU: words by the run, from which the values are made.
#include "random_functors.h"
#include "random_kernels.h"

#include <algorithm>
#include <numeric>

#include <opsin/error.h>
#include <opsin/half.h>
#include <opsin/scalar.h>

#include "core/dispatch.h"
#include "cpu/thread_pool.h"

namespace opsin {

namespace {

constexpr int64_t kBlockGrain = 8192;

/// Calls `f(first, n, words)` for runs of values [first, first + n) of [0, count), a block of four words for
/// every kPerBlock values; words points at the first one's own (32 bits each for kPerBlock = 4, two of them
/// for 2).
template <int kPerBlock, class F>
void for_each_run(int64_t count, const PhiloxSeed& random, F f) {
  // The words of a run stay in the first cache.
  constexpr int64_t kRun = 256;
  const auto draw = OPSIN_ISA_SELECT(cpu::random_table).words;
  cpu::parallel_for((count + kPerBlock - 1) / kPerBlock, kBlockGrain, [&](int64_t begin, int64_t end) {
    alignas(64) uint32_t words[4 * kRun];
    for (; begin < end; begin += kRun) {
      const int64_t blocks = std::min(kRun, end - begin), first = begin * kPerBlock;
      draw(random.seed, random.offset + static_cast<uint64_t>(begin), blocks, words);
      f(first, std::min(blocks * kPerBlock, count - first), words);
    }
  });
}

/// Fills with what `make(words, n, values)` makes from runs of words; the values of 16-bit types are floats.
template <class T, class F>
void fill_runs(const FillParams& p, F make) {
  auto* data = static_cast<T*>(p.out);
  constexpr int kPerBlock = std::is_same_v<T, double> ? 2 : 4;
  for_each_run<kPerBlock>(p.count, p.random, [&](int64_t first, int64_t n, const uint32_t* words) {
    if constexpr (std::is_same_v<T, compute_t<T>>) {
      make(words, n, data + first);
    } else {
      float values[1024];
      make(words, n, values);
      for (int64_t i = 0; i < n; ++i) data[first + i] = static_cast<T>(values[i]);
    }
  });
}

void fill_uniform(const FillParams& p) {
  const auto& kernels = OPSIN_ISA_SELECT(cpu::random_table);
  dispatch_floating(p.dtype, "uniform_", [&]<class T>() {
    fill_runs<T>(p, [&](const uint32_t* words, int64_t n, compute_t<T>* values) {
      if constexpr (std::is_same_v<T, double>) {
        kernels.uniform_double(words, n, p.a, p.b, values);
      } else {
        kernels.uniform_float(words, n, philox::uniform_bits(p.dtype), p.a, p.b, values);
      }
    });
  });
}

/// A pair of words gives a pair of normals (two pairs in float64).
void fill_normal(const FillParams& p) {
  const auto& kernels = OPSIN_ISA_SELECT(cpu::random_table);
  dispatch_floating(p.dtype, "normal_", [&]<class T>() {
    fill_runs<T>(p, [&](const uint32_t* words, int64_t n, compute_t<T>* values) {
      if constexpr (std::is_same_v<T, double>) {
        kernels.normal_double(words, n, p.a, p.b, values);
      } else {
        kernels.normal_float(words, n, p.a, p.b, values);
      }
    });
  });
}

void fill_bernoulli(const FillParams& p) {
  dispatch_real(p.dtype, "bernoulli_", [&]<class T>() {
    auto* data = static_cast<T*>(p.out);
    for_each_run<4>(p.count, p.random,
                    [data, limit = p.limit](int64_t first, int64_t n, const uint32_t* words) {
                      for (int64_t i = 0; i < n; ++i) {
                        data[first + i] = static_cast<T>(philox::is_below(words[i], limit) ? 1.0f : 0.0f);
                      }
                    });
  });
}

void fill_randint(const FillParams& p) {
  dispatch_real(p.dtype, "randint", [&]<class T>() {
    const auto fill = [&](auto range) {
      for_each_run<2>(p.count, p.random,
                      [data = static_cast<T*>(p.out), low = p.low, range](int64_t first, int64_t n,
                                                                          const uint32_t* words) {
                        for (int64_t i = 0; i < n; ++i) {
                          data[first + i] =
                              Scalar(philox::integer_in(words[2 * i], words[2 * i + 1], low, range)).to<T>();
                        }
                      });
    };
    // Known to be small, the range needs half of the products.
    if (p.range <= UINT32_MAX) {
      fill(static_cast<uint32_t>(p.range));
    } else {
      fill(p.range);
    }
  });
}

void fill_randperm(const FillParams& p) {
  auto* data = static_cast<int64_t*>(p.out);
  std::iota(data, data + p.count, 0);
  for (int64_t i = p.count - 1; i > 0; --i) {
    const philox::Block words = philox::block(p.random.seed, p.random.offset + static_cast<uint64_t>(i));
    std::swap(data[i],
              data[philox::integer_in(words.word[0], words.word[1], 0, static_cast<uint64_t>(i) + 1)]);
  }
}

void draw_bernoulli(const BernoulliParams& params) {
  dispatch_floating(params.dtype, "bernoulli", [&]<class T>() {
    const auto* p = static_cast<const T*>(params.p);
    auto* y = static_cast<T*>(params.y);
    for_each_run<4>(params.count, params.random, [&](int64_t first, int64_t n, const uint32_t* words) {
      for (int64_t i = 0; i < n; ++i) {
        const auto probability = static_cast<double>(p[first + i]);
        OPSIN_CHECK(Error, probability >= 0 && probability <= 1,
                    "bernoulli: Expected p_in >= 0 && p_in <= 1, got ", probability);
        y[first + i] = Scalar(static_cast<double>(philox::uniform_float(words[i])) < probability).to<T>();
      }
    });
  });
}

void apply_dropout(const DropoutParams& p) {
  const auto kernel = OPSIN_ISA_SELECT(cpu::random_table).dropout[static_cast<int>(p.dtype)];
  const auto size = static_cast<int64_t>(item_size(p.dtype));
  const auto* x = static_cast<const char*>(p.x);
  auto* y = static_cast<char*>(p.y);
  for_each_run<4>(p.count, p.random, [&](int64_t first, int64_t n, const uint32_t* words) {
    kernel(words, n, p.least, p.scale, x + first * size, y + first * size);
  });
}

}  // namespace

void register_random_cpu() {
  constexpr auto kDevice = DeviceType::kCPU;
  for (int i = 0; i < kNumDTypes; ++i) {
    const auto dtype = static_cast<DType>(i);
    if (is_floating_point(dtype)) {
      uniform_fill.set(kDevice, dtype, fill_uniform);
      normal_fill.set(kDevice, dtype, fill_normal);
      bernoulli_forward.set(kDevice, dtype, draw_bernoulli);
      dropout_forward.set(kDevice, dtype, apply_dropout);
    }
    if (is_complex(dtype)) continue;
    bernoulli_fill.set(kDevice, dtype, fill_bernoulli);
    randint_fill.set(kDevice, dtype, fill_randint);
  }
  randperm_fill.set(kDevice, kInt64, fill_randperm);
}

}  // namespace opsin

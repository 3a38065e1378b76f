// Pooling kernels against loops in double precision. They run with the instruction set of OPSIN_ISA.
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include <opsin/dtype.h>
#include <opsin/error.h>

#include "cpu/pool.h"
#include "cpu/thread_pool.h"

namespace opsin::cpu {
namespace {

using Values = std::vector<double>;

int64_t volume(const int64_t (&size)[3]) { return size[0] * size[1] * size[2]; }

PoolGeometry square(int64_t batch, int64_t size, int64_t channels, int64_t kernel, int64_t stride,
                    int64_t pad = 0, int64_t dilation = 1, bool ceil_mode = false) {
  PoolGeometry g;
  g.batch = batch;
  g.channels = channels;
  for (int a = 1; a < 3; ++a) {
    g.in[a] = size;
    g.kernel[a] = kernel;
    g.stride[a] = stride;
    g.dilation[a] = dilation;
    g.pad_begin[a] = g.pad_end[a] = pad;
    const int64_t room = size + 2 * pad - dilation * (kernel - 1) - 1 + (ceil_mode ? stride - 1 : 0);
    g.out[a] = room / stride + 1;
    // PyTorch: the last window must start inside the input or the left padding.
    if (ceil_mode && (g.out[a] - 1) * stride >= size + pad) --g.out[a];
  }
  return g;
}

PoolGeometry cube() {
  PoolGeometry g = square(2, 7, 20, 3, 2, 1);
  g.in[0] = 6;
  g.kernel[0] = 2;
  g.stride[0] = 2;
  g.out[0] = 3;
  return g;
}

std::vector<PoolGeometry> geometries() {
  std::vector<PoolGeometry> all = {square(2, 8, 40, 2, 2),
                                   square(1, 9, 3, 3, 2, 1),
                                   square(2, 7, 33, 3, 1, 1),
                                   square(1, 10, 70, 3, 2, 0, 1, true),
                                   square(1, 11, 32, 3, 3, 1, 1, true),
                                   square(3, 1, 5, 1, 1),
                                   square(1, 12, 300, 5, 4, 2),
                                   square(0, 8, 4, 2, 2),
                                   cube()};
  PoolGeometry line = square(2, 1, 17, 1, 1);
  line.in[2] = 21;
  line.kernel[2] = 4;
  line.stride[2] = 3;
  line.pad_begin[2] = 2;
  line.pad_end[2] = 1;
  line.out[2] = 7;
  all.push_back(line);
  return all;
}

template <class T>
std::vector<T> as(const Values& values) {
  std::vector<T> result;
  for (double v : values) {
    if constexpr (std::is_integral_v<T>) {
      result.push_back(static_cast<T>(std::is_unsigned_v<T> ? v * 16 + 64 : v * 16));
    } else {
      result.push_back(T(static_cast<float>(v)));
    }
  }
  return result;
}

// Sixteenths are exact in every floating-point dtype; many values are equal, so ties happen.
Values random_values(int64_t count) {
  std::mt19937 random(3);
  Values values(static_cast<size_t>(count));
  for (double& v : values) v = (static_cast<double>(random() % 65) - 32) / 16;
  return values;
}

// Calls use(y, window) with the input index of every pixel in the window; `window` holds one axis after the
// other.
struct Window {
  int64_t begin[3], end[3], step[3], padded[3];
};

Window window_of(const PoolGeometry& g, const int64_t (&o)[3]) {
  Window w{};
  for (int a = 0; a < 3; ++a) {
    w.step[a] = g.adaptive ? 1 : g.dilation[a];
    if (g.adaptive) {
      w.begin[a] = static_cast<int64_t>(
          std::floor(static_cast<double>(o[a] * g.in[a]) / static_cast<double>(g.out[a])));
      w.end[a] = static_cast<int64_t>(
          std::ceil(static_cast<double>((o[a] + 1) * g.in[a]) / static_cast<double>(g.out[a])));
      w.padded[a] = w.end[a] - w.begin[a];
    } else {
      w.begin[a] = o[a] * g.stride[a] - g.pad_begin[a];
      w.end[a] = w.begin[a] + (g.kernel[a] - 1) * g.dilation[a] + 1;
      w.padded[a] = std::min(w.end[a], g.in[a] + g.pad_end[a]) - w.begin[a];
    }
  }
  return w;
}

// Calls pixel(y, x, flat index) for what every output sees and done(y, padded size, pixels inside) after
// each.
template <class P, class D>
void for_windows(const PoolGeometry& g, P&& pixel, D&& done) {
  for (int64_t n = 0; n < g.batch; ++n)
    for (int64_t o0 = 0; o0 < g.out[0]; ++o0)
      for (int64_t o1 = 0; o1 < g.out[1]; ++o1)
        for (int64_t o2 = 0; o2 < g.out[2]; ++o2)
          for (int64_t c = 0; c < g.channels; ++c) {
            const auto y =
                static_cast<size_t>((((n * g.out[0] + o0) * g.out[1] + o1) * g.out[2] + o2) * g.channels + c);
            const Window w = window_of(g, {o0, o1, o2});
            int64_t inside = 0;
            for (int64_t i0 = w.begin[0]; i0 < w.end[0]; i0 += w.step[0])
              for (int64_t i1 = w.begin[1]; i1 < w.end[1]; i1 += w.step[1])
                for (int64_t i2 = w.begin[2]; i2 < w.end[2]; i2 += w.step[2]) {
                  if (i0 < 0 || i0 >= g.in[0] || i1 < 0 || i1 >= g.in[1] || i2 < 0 || i2 >= g.in[2]) continue;
                  const int64_t flat = (i0 * g.in[1] + i1) * g.in[2] + i2;
                  ++inside;
                  pixel(y, static_cast<size_t>((n * volume(g.in) + flat) * g.channels + c), flat);
                }
            done(y, w.padded[0] * w.padded[1] * w.padded[2], inside);
          }
}

template <class T>
void expect_close(const std::vector<T>& actual, const Values& expected, double tolerance, const char* what) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    const double got = static_cast<double>(actual[i]);
    if (std::isnan(expected[i]) && std::isnan(got)) continue;
    ASSERT_TRUE(got == expected[i] ||
                std::fabs(got - expected[i]) <= tolerance * (1 + std::fabs(expected[i])))
        << what << "[" << i << "]: got " << got << ", expected " << expected[i];
  }
}

// Runs `body(out)` with 1 and 2 threads and expects the same bits.
template <class T, class F>
std::vector<T> both_threads(size_t count, F&& body) {
  const int threads = num_threads();
  std::vector<T> one(count, T(99)), two(count, T(98));
  set_num_threads(1);
  body(one.data());
  set_num_threads(2);
  body(two.data());
  set_num_threads(threads);
  EXPECT_TRUE(count == 0 || std::memcmp(one.data(), two.data(), count * sizeof(T)) == 0)
      << "1 and 2 threads differ";
  return one;
}

template <class T>
void check_max(const PoolGeometry& g, bool with_nan) {
  SCOPED_TRACE(name(dtype_of<T>));
  const size_t in = static_cast<size_t>(g.batch * volume(g.in) * g.channels);
  const size_t out = static_cast<size_t>(g.batch * volume(g.out) * g.channels);
  auto x = as<T>(random_values(static_cast<int64_t>(in)));
  if constexpr (!std::is_integral_v<T>) {
    for (size_t i = 0; with_nan && i < in; i += 7) x[i] = T(std::numeric_limits<float>::quiet_NaN());
  }
  Values best(out, -std::numeric_limits<double>::infinity());
  std::vector<int64_t> where(out, -1);
  for_windows(
      g,
      [&](size_t y, size_t i, int64_t flat) {
        const double value = static_cast<double>(x[i]);
        if (value > best[y] || std::isnan(value)) {
          best[y] = value;
          where[y] = flat;
        }
      },
      [](size_t, int64_t, int64_t) {});
  std::vector<int64_t> indices;
  const auto y = both_threads<T>(out, [&](T* values) {
    indices = both_threads<int64_t>(out, [&](int64_t* positions) {
      max_pool_forward(g, dtype_of<T>, x.data(), values, {.indices = positions});
    });
  });
  expect_close(y, best, 0, "y");
  EXPECT_EQ(indices, where);
  const auto unindexed =
      both_threads<T>(out, [&](T* values) { max_pool_forward(g, dtype_of<T>, x.data(), values, {}); });
  EXPECT_TRUE(out == 0 || std::memcmp(y.data(), unindexed.data(), out * sizeof(T)) == 0);
  std::vector<uint8_t> taps;
  const auto tapped = both_threads<T>(out, [&](T* values) {
    taps = both_threads<uint8_t>(out, [&](uint8_t* positions) {
      max_pool_forward(g, dtype_of<T>, x.data(), values, {.taps = positions});
    });
  });
  EXPECT_TRUE(out == 0 || std::memcmp(y.data(), tapped.data(), out * sizeof(T)) == 0);

  if constexpr (!std::is_integral_v<T>) {
    const PoolPositions forms[] = {{.indices = indices.data()}, {.taps = taps.data()}};
    for (const PoolPositions& form : forms) {
      const auto gathered =
          both_threads<T>(out, [&](T* values) { max_pool_gather(g, dtype_of<T>, x.data(), form, values); });
      EXPECT_TRUE(out == 0 || std::memcmp(y.data(), gathered.data(), out * sizeof(T)) == 0);
    }
    const auto grad = as<T>(random_values(static_cast<int64_t>(out)));
    Values expected(in, 0.0);
    const int64_t image = volume(g.out) * g.channels;
    for (size_t i = 0; i < out; ++i) {
      const int64_t j = static_cast<int64_t>(i), n = j / image;
      expected[static_cast<size_t>((n * volume(g.in) + where[i]) * g.channels + j % g.channels)] +=
          static_cast<double>(grad[i]);
    }
    for (const PoolPositions& form : forms) {
      const auto grad_x = both_threads<T>(
          in, [&](T* values) { max_pool_backward(g, dtype_of<T>, grad.data(), form, values); });
      expect_close(grad_x, expected, 4e-3, "grad_x");
    }
  }
}

TEST(Pool, Max) {
  auto all = geometries();
  all.push_back(square(2, 13, 36, 3, 2, 1, 3));
  all.push_back(square(1, 9, 8, 2, 1, 1, 2));
  for (const PoolGeometry& g : all) {
    for (bool with_nan : {false, true}) {
      check_max<float>(g, with_nan);
      check_max<double>(g, with_nan);
      check_max<float16>(g, with_nan);
      check_max<bfloat16>(g, with_nan);
    }
    check_max<uint8_t>(g, false);
    check_max<int8_t>(g, false);
    check_max<int16_t>(g, false);
    check_max<int32_t>(g, false);
    check_max<int64_t>(g, false);
  }
}

std::vector<PoolGeometry> adaptive_geometries() {
  PoolGeometry uneven = square(2, 10, 37, 1, 1);
  uneven.out[1] = 3;
  uneven.out[2] = 7;
  PoolGeometry global = square(3, 7, 65, 1, 1);
  global.out[1] = global.out[2] = 1;
  PoolGeometry larger = square(1, 3, 5, 1, 1);
  larger.out[1] = larger.out[2] = 8;
  larger.in[0] = 4;
  larger.out[0] = 3;
  std::vector<PoolGeometry> all = {uneven, global, larger};
  for (PoolGeometry& g : all) {
    g.adaptive = true;
    for (int a = 0; a < 3; ++a) g.kernel[a] = std::min(g.in[a], g.in[a] / g.out[a] + 2);
  }
  return all;
}

TEST(Pool, AdaptiveMax) {
  for (const PoolGeometry& g : adaptive_geometries()) {
    check_max<float>(g, true);
    check_max<double>(g, false);
    check_max<bfloat16>(g, false);
    check_max<int32_t>(g, false);
  }
}

TEST(Pool, MaxOfInfinitiesPointsAtTheFirstPixel) {
  const PoolGeometry g = square(1, 4, 3, 3, 2, 1);
  const std::vector<float> x(48, -std::numeric_limits<float>::infinity());
  std::vector<float> y(12, 0);
  std::vector<int64_t> indices(12, -1);
  max_pool_forward(g, kFloat32, x.data(), y.data(), {.indices = indices.data()});
  EXPECT_EQ(y, std::vector<float>(12, -std::numeric_limits<float>::infinity()));
  EXPECT_EQ(indices, (std::vector<int64_t>{0, 0, 0, 1, 1, 1, 4, 4, 4, 5, 5, 5}));
}

template <class T>
void check_avg(const PoolGeometry& g, bool include_pad, int64_t divisor, double tolerance) {
  SCOPED_TRACE(name(dtype_of<T>));
  const size_t in = static_cast<size_t>(g.batch * volume(g.in) * g.channels);
  const size_t out = static_cast<size_t>(g.batch * volume(g.out) * g.channels);
  const auto x = as<T>(random_values(static_cast<int64_t>(in))),
             grad = as<T>(random_values(static_cast<int64_t>(out)));
  Values y(out, 0.0), grad_x(in, 0.0);
  std::vector<std::vector<size_t>> seen(out);
  for_windows(
      g, [&](size_t i, size_t j, int64_t) { seen[i].push_back(j); },
      [&](size_t i, int64_t padded, int64_t inside) {
        const double by = static_cast<double>(divisor != 0 ? divisor : include_pad ? padded : inside);
        for (size_t j : seen[i]) {
          y[i] += static_cast<double>(x[j]) / by;
          grad_x[j] += static_cast<double>(grad[i]) / by;
        }
      });
  const auto got = both_threads<T>(
      out, [&](T* values) { avg_pool_forward(g, dtype_of<T>, include_pad, divisor, x.data(), values); });
  expect_close(got, y, tolerance, "y");
  const auto got_grad = both_threads<T>(
      in, [&](T* values) { avg_pool_backward(g, dtype_of<T>, include_pad, divisor, grad.data(), values); });
  expect_close(got_grad, grad_x, tolerance, "grad_x");
}

TEST(Pool, Average) {
  for (const PoolGeometry& g : geometries()) {
    for (bool include_pad : {false, true}) {
      for (int64_t divisor : {0, 5}) {
        check_avg<float>(g, include_pad, divisor, 2e-6);
        check_avg<double>(g, include_pad, divisor, 1e-14);
        check_avg<float16>(g, include_pad, divisor, 1e-3);
        check_avg<bfloat16>(g, include_pad, divisor, 8e-3);
      }
    }
  }
}

TEST(Pool, AdaptiveAverage) {
  for (const PoolGeometry& g : adaptive_geometries()) {
    check_avg<float>(g, false, 0, 2e-6);
    check_avg<double>(g, false, 0, 1e-14);
    check_avg<float16>(g, false, 0, 1e-3);
    check_avg<bfloat16>(g, false, 0, 8e-3);
  }
}

TEST(Pool, RefusesOtherTypes) {
  const PoolGeometry g = square(1, 4, 1, 2, 2);
  EXPECT_THROW(max_pool_forward(g, kBool, nullptr, nullptr, {}), TypeError);
  EXPECT_THROW(avg_pool_forward(g, kInt64, true, 0, nullptr, nullptr), TypeError);
}

}  // namespace
}  // namespace opsin::cpu

// Convolution kernels against loops in double precision. They run with the instruction set of OPSIN_ISA.
#include "leave_nan.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

#include <gtest/gtest.h>

#include <opsin/dtype.h>
#include <opsin/error.h>

#include "cpu/conv.h"
#include "cpu/thread_pool.h"

namespace opsin::cpu {
namespace {

using Values = std::vector<double>;

int64_t volume(const int64_t (&size)[3]) { return size[0] * size[1] * size[2]; }

// Fills in the output sizes.
ConvGeometry sized(ConvGeometry g) {
  for (int a = 0; a < 3; ++a) {
    g.out[a] =
        (g.in[a] + g.pad_begin[a] + g.pad_end[a] - g.dilation[a] * (g.kernel[a] - 1) - 1) / g.stride[a] + 1;
  }
  return g;
}

ConvGeometry square(int64_t batch, int64_t size, int64_t channels, int64_t outputs, int64_t kernel,
                    int64_t stride = 1, int64_t pad = 0, int64_t dilation = 1, int64_t groups = 1) {
  ConvGeometry g;
  g.batch = batch;
  g.in_channels = channels;
  g.out_channels = outputs;
  g.groups = groups;
  for (int a = 1; a < 3; ++a) {
    g.in[a] = size;
    g.kernel[a] = kernel;
    g.stride[a] = stride;
    g.dilation[a] = dilation;
    g.pad_begin[a] = g.pad_end[a] = pad;
  }
  return sized(g);
}

std::string describe(const ConvGeometry& g) {
  std::string text = "N " + std::to_string(g.batch) + " C " + std::to_string(g.in_channels) + " K " +
                     std::to_string(g.out_channels) + " groups " + std::to_string(g.groups);
  for (int a = 0; a < 3; ++a) {
    text += "; in " + std::to_string(g.in[a]) + " k " + std::to_string(g.kernel[a]) + " s " +
            std::to_string(g.stride[a]) + " d " + std::to_string(g.dilation[a]) + " p " +
            std::to_string(g.pad_begin[a]) + "," + std::to_string(g.pad_end[a]);
  }
  return text;
}

// Calls use(index of x, index of weight, index of y) for every product of the convolution.
template <class F>
void for_products(const ConvGeometry& g, F&& use) {
  const int64_t c_group = g.in_channels / g.groups, k_group = g.out_channels / g.groups;
  const auto &in = g.in, &out = g.out, &kernel = g.kernel;
  for (int64_t n = 0; n < g.batch; ++n)
    for (int64_t o0 = 0; o0 < out[0]; ++o0)
      for (int64_t o1 = 0; o1 < out[1]; ++o1)
        for (int64_t o2 = 0; o2 < out[2]; ++o2)
          for (int64_t t0 = 0; t0 < kernel[0]; ++t0)
            for (int64_t t1 = 0; t1 < kernel[1]; ++t1)
              for (int64_t t2 = 0; t2 < kernel[2]; ++t2) {
                const int64_t i0 = o0 * g.stride[0] - g.pad_begin[0] + t0 * g.dilation[0];
                const int64_t i1 = o1 * g.stride[1] - g.pad_begin[1] + t1 * g.dilation[1];
                const int64_t i2 = o2 * g.stride[2] - g.pad_begin[2] + t2 * g.dilation[2];
                if (i0 < 0 || i0 >= in[0] || i1 < 0 || i1 >= in[1] || i2 < 0 || i2 >= in[2]) continue;
                const int64_t x = (((n * in[0] + i0) * in[1] + i1) * in[2] + i2) * g.in_channels;
                const int64_t y = (((n * out[0] + o0) * out[1] + o1) * out[2] + o2) * g.out_channels;
                const int64_t tap = (t0 * kernel[1] + t1) * kernel[2] + t2;
                for (int64_t k = 0; k < g.out_channels; ++k)
                  for (int64_t c = 0; c < c_group; ++c) {
                    use(x + k / k_group * c_group + c, (k * c_group + c) * volume(kernel) + tap, y + k);
                  }
              }
}

struct Case {
  ConvGeometry g;
  Values x, weight, bias, grad_y;

  explicit Case(const ConvGeometry& geometry) : g(geometry) {
    std::mt19937 random(7);
    const auto fill = [&](Values& values, int64_t count) {
      values.resize(static_cast<size_t>(count));
      // Sixteenths are exact in every dtype, so the reference sees the same operands as the kernels.
      for (double& v : values) v = (static_cast<double>(random() % 65) - 32) / 16;
    };
    fill(x, g.batch * volume(g.in) * g.in_channels);
    fill(weight, g.out_channels * (g.in_channels / g.groups) * volume(g.kernel));
    fill(bias, g.out_channels);
    fill(grad_y, g.batch * volume(g.out) * g.out_channels);
  }
};

template <class T>
std::vector<T> as(const Values& values) {
  std::vector<T> result;
  for (double v : values) result.push_back(T(static_cast<float>(v)));
  return result;
}
template <>
std::vector<double> as(const Values& values) {
  return values;
}

template <class T>
struct Results {
  std::vector<T> y, grad_x, grad_weight, grad_bias;

  explicit Results(const Case& c)
      : y(c.grad_y.size()), grad_x(c.x.size()), grad_weight(c.weight.size()), grad_bias(c.bias.size()) {
    // Whatever is not written must show.
    for (auto* values : {&y, &grad_x, &grad_weight, &grad_bias}) {
      std::fill(values->begin(), values->end(), T(std::numeric_limits<float>::quiet_NaN()));
    }
    const auto x = as<T>(c.x), weight = as<T>(c.weight), bias = as<T>(c.bias), grad_y = as<T>(c.grad_y);
    const auto prepare = [] {
      if constexpr (std::is_same_v<T, bfloat16>) leave_nan();
    };
    prepare();
    conv_forward(c.g, dtype_of<T>, x.data(), weight.data(), bias.data(), y.data());
    prepare();
    conv_backward_input(c.g, dtype_of<T>, grad_y.data(), weight.data(), grad_x.data());
    prepare();
    conv_backward_weight(c.g, dtype_of<T>, x.data(), grad_y.data(), grad_weight.data(), grad_bias.data());
  }
  bool operator==(const Results& other) const {
    const auto same = [](const std::vector<T>& a, const std::vector<T>& b) {
      return a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
    };
    return same(y, other.y) && same(grad_x, other.grad_x) && same(grad_weight, other.grad_weight) &&
           same(grad_bias, other.grad_bias);
  }
};

// Relative to the largest value: sums of random signs cancel.
template <class T>
void expect_close(const std::vector<T>& actual, const Values& expected, double tolerance,
                  const std::string& what) {
  double largest = 1;
  for (double v : expected) largest = std::max(largest, std::fabs(v));
  for (size_t i = 0; i < expected.size(); ++i) {
    const double got = static_cast<double>(actual[i]);
    if (!(std::fabs(got - expected[i]) <= tolerance * largest)) {
      ADD_FAILURE() << what << "[" << i << "]: got " << got << ", expected " << expected[i];
      return;
    }
  }
}

template <class T>
void check(const ConvGeometry& g, double tolerance) {
  SCOPED_TRACE(describe(g) + " " + name(dtype_of<T>));
  const Case c(g);
  Values y(c.grad_y.size()), grad_x(c.x.size()), grad_weight(c.weight.size()), grad_bias(c.bias.size());
  for (size_t i = 0; i < y.size(); ++i) {
    y[i] = c.bias[i % c.bias.size()];
    grad_bias[i % c.bias.size()] += c.grad_y[i];
  }
  for_products(g, [&](int64_t xi, int64_t wi, int64_t yi) {
    const auto i = static_cast<size_t>(xi), j = static_cast<size_t>(wi), k = static_cast<size_t>(yi);
    y[k] += c.x[i] * c.weight[j];
    grad_x[i] += c.grad_y[k] * c.weight[j];
    grad_weight[j] += c.grad_y[k] * c.x[i];
  });
  const int threads = num_threads();
  set_num_threads(1);
  const Results<T> one(c);
  set_num_threads(2);
  const Results<T> two(c);
  set_num_threads(threads);
  expect_close(one.y, y, tolerance, "y");
  expect_close(one.grad_x, grad_x, tolerance, "grad_x");
  expect_close(one.grad_weight, grad_weight, tolerance, "grad_weight");
  expect_close(one.grad_bias, grad_bias, tolerance, "grad_bias");
  EXPECT_TRUE(one == two) << "1 and 2 threads differ";
}

void check_all(const ConvGeometry& g) {
  check<float>(g, 2e-6);
  check<double>(g, 1e-14);
  check<float16>(g, 6e-4);
  check<bfloat16>(g, 5e-3);
}

TEST(Conv, Dense) {
  check_all(square(2, 8, 16, 32, 3, 1, 1));
  check_all(square(1, 7, 40, 50, 3, 1, 1));
  check_all(square(3, 5, 33, 17, 3));
  check_all(square(2, 9, 20, 10, 5, 1, 2));
  check_all(square(1, 14, 150, 70, 3, 1, 1));
}

// Kernels of other algorithms: float32 sums of 16-bit operands, and float64.
TEST(Conv, Algorithms) {
  for (const ConvAlgorithm algorithm : {ConvAlgorithm::kIm2col, ConvAlgorithm::kFft}) {
    const auto check_with = [&](ConvGeometry g) {
      g.algorithm = algorithm;
      check_all(g);
    };
    check_with(square(2, 13, 5, 40, 7, 1, 3));
    check_with(square(2, 11, 20, 3, 5, 1, 0));
    check_with(square(3, 12, 12, 24, 3, 2, 1, 2, 4));
    check_with(square(2, 17, 9, 9, 11, 1, 5, 1, 9));
    check_with(square(1, 40, 1, 1, 9, 1, 8));
  }
}

// What tiles of 16 pixels, 16 outputs and 32 products do not divide, and edges within them.
TEST(Conv, TilesOfBFloat16) {
  const auto check_with = [](const ConvGeometry& g) { check<bfloat16>(g, 5e-3); };
  check_with(square(2, 18, 32, 40, 3, 1, 1));
  check_with(square(1, 16, 64, 33, 3, 1, 1));
  check_with(square(2, 19, 96, 16, 3, 2, 1));
  check_with(square(1, 6, 544, 20, 3, 1, 1));  // more channels than are copied together
  check_with(square(1, 13, 26, 48, 7, 1, 3));  // products that are copied in several runs
  check_with(square(3, 33, 64, 64, 1));
  check_with(square(2, 17, 160, 96, 1, 2));
  check_with(square(2, 10, 48, 72, 3, 1, 1, 1, 2));
  check_with(square(1, 12, 32, 3, 3, 1, 1));
  check_with(square(1, 10, 128, 1, 3, 1, 1));
  check_with(square(1, 40, 3, 64, 7, 2, 3));
  for (int64_t batch : {1, 2, 16, 17, 31, 33}) check_with(square(batch, 1, 64, 32, 1));
}

// An item's outputs and its gradient have the same bits alone and in a batch.
template <class T>
void check_items(const ConvGeometry& all) {
  SCOPED_TRACE(describe(all));
  Case c(all);
  std::mt19937 random(3);
  std::uniform_real_distribution<double> uniform(-1, 1);
  for (Values* values : {&c.x, &c.weight, &c.bias, &c.grad_y}) {
    for (double& v : *values) v = uniform(random);
  }
  const auto x = as<T>(c.x), weight = as<T>(c.weight), bias = as<T>(c.bias), grad_y = as<T>(c.grad_y);
  const Results<T> whole(c);
  ConvGeometry one = all;
  one.batch = 1;
  const size_t in = x.size() / static_cast<size_t>(all.batch),
               out = grad_y.size() / static_cast<size_t>(all.batch);
  for (size_t item = 0; item < static_cast<size_t>(all.batch); ++item) {
    std::vector<T> y(out), grad_x(in);
    conv_forward(one, dtype_of<T>, &x[item * in], weight.data(), bias.data(), y.data());
    conv_backward_input(one, dtype_of<T>, &grad_y[item * out], weight.data(), grad_x.data());
    EXPECT_EQ(std::memcmp(y.data(), &whole.y[item * out], out * sizeof(T)), 0) << item;
    EXPECT_EQ(std::memcmp(grad_x.data(), &whole.grad_x[item * in], in * sizeof(T)), 0) << item;
  }
}

TEST(Conv, ItemsOfABatch) {
  const auto check_with = [](const ConvGeometry& g) {
    check_items<bfloat16>(g);
    check_items<float16>(g);
  };
  check_with(square(5, 7, 64, 40, 3, 1, 1));
  check_with(square(5, 9, 24, 40, 3, 2, 1));
  check_with(square(5, 5, 20, 24, 1));
  check_with(square(9, 1, 96, 10, 1));
  check_with(square(3, 5, 64, 2, 3, 1, 1));
}

TEST(Conv, OneByOne) {
  check_all(square(2, 7, 64, 96, 1));
  check_all(square(1, 1, 300, 40, 1));
  check_all(square(2, 9, 24, 16, 1, 2));
  check_all(square(3, 4, 512, 33, 1));
  check<float>(square(2, 5, 520, 600, 1), 2e-6);
  check<double>(square(1, 5, 300, 600, 1), 1e-14);
}

TEST(Conv, FewChannels) {
  for (int64_t channels : {1, 2, 3, 7}) {
    check_all(square(2, 12, channels, 20, 3, 1, 1));
    check_all(square(1, 21, channels, 33, 7, 2, 3));
    check_all(square(1, 12, channels, 5, 4, 4));
    check_all(square(1, 12, channels, 5, 3, 1, 2, 2));
    check_all(square(1, 12, 9, channels, 3, 1, 1));
  }
}

TEST(Conv, StrideAndDilation) {
  for (int64_t stride : {1, 2, 3, 4}) {
    for (int64_t dilation : {1, 2, 3}) {
      check_all(square(2, 11, 18, 24, 3, stride, 2, dilation));
      check_all(square(1, 13, 3, 24, 3, stride, 2, dilation));
    }
  }
  check_all(square(1, 10, 12, 12, 2, 5));
  check_all(square(1, 9, 12, 12, 1, 4, 1));
}

TEST(Conv, GroupsAndDepthwise) {
  check_all(square(2, 7, 24, 36, 3, 1, 1, 1, 6));
  check_all(square(1, 7, 64, 64, 3, 2, 1, 1, 2));
  for (int64_t multiplier : {1, 2, 3}) {
    check_all(square(2, 9, 40, 40 * multiplier, 3, 1, 1, 1, 40));
    check_all(square(1, 11, 19, 19 * multiplier, 5, 2, 2, 1, 19));
    check_all(square(1, 11, 5, 5 * multiplier, 3, 2, 2, 2, 5));
  }
  check_all(square(1, 6, 16, 16, 6, 1, 3, 1, 16));
  for (int64_t group : {2, 4, 8, 16}) {
    check_all(square(2, 9, 5 * group, 5 * group, 3, 1, 1, 1, 5));
    check_all(square(1, 11, 8 * group, 8 * group, 3, 2, 1, 1, 8));
    check_all(square(1, 7, 3 * group, 6 * group, 3, 1, 1, 1, 3));
  }
}

TEST(Conv, OneAndThreeDimensions) {
  ConvGeometry line = square(3, 1, 20, 24, 1);
  line.spatial = 1;
  line.in[2] = 37;
  line.kernel[2] = 5;
  line.stride[2] = 3;
  line.dilation[2] = 2;
  line.pad_begin[2] = 4;
  line.pad_end[2] = 1;
  check_all(sized(line));
  ConvGeometry space = square(2, 6, 10, 18, 3, 1, 1);
  space.spatial = 3;
  space.in[0] = 5;
  space.kernel[0] = 3;
  space.stride[0] = 2;
  space.pad_begin[0] = 2;
  space.pad_end[0] = 0;
  check_all(sized(space));
  space.in_channels = 2;
  check_all(sized(space));
  space.groups = space.in_channels = space.out_channels = 18;
  check_all(sized(space));
}

TEST(Conv, AsymmetricPaddingAndKernelsLargerThanTheInput) {
  ConvGeometry g = square(2, 4, 12, 9, 3);
  g.pad_begin[1] = 3;
  g.pad_end[1] = 0;
  g.pad_begin[2] = 0;
  g.pad_end[2] = 5;
  check_all(sized(g));
  g.in_channels = 3;
  check_all(sized(g));
  check_all(square(1, 2, 12, 9, 7, 1, 3));
  check_all(square(1, 2, 3, 9, 7, 1, 3));
  check_all(square(1, 2, 3, 9, 5, 3, 4, 2));
  check_all(square(1, 1, 16, 16, 3, 2, 1));
}

TEST(Conv, ManySplits) {
  check<float>(square(4, 30, 8, 16, 3, 1, 1), 2e-6);
  check<float>(square(4, 30, 4, 4, 3, 1, 1, 1, 4), 2e-6);
  check<float16>(square(3, 70, 40, 40, 1), 6e-4);
}

TEST(Conv, RandomGeometries) {
  std::mt19937 random(11);
  const auto pick = [&](int64_t low, int64_t high) {
    return low + static_cast<int64_t>(random()) % (high - low + 1);
  };
  for (int i = 0; i < 150; ++i) {
    ConvGeometry g;
    g.batch = pick(1, 3);
    g.groups = pick(0, 2) == 0 ? pick(1, 5) : 1;
    g.in_channels = g.groups * pick(1, 20);
    g.out_channels = g.groups * pick(1, 40);
    g.spatial = static_cast<int>(pick(1, 3));
    bool possible = true;
    for (int a = 3 - g.spatial; a < 3; ++a) {
      g.in[a] = pick(1, 9);
      g.kernel[a] = pick(1, 4);
      g.stride[a] = pick(1, 3);
      g.dilation[a] = pick(1, 2);
      g.pad_begin[a] = pick(0, 3);
      g.pad_end[a] = pick(0, 3);
      possible = possible && g.in[a] + g.pad_begin[a] + g.pad_end[a] > g.dilation[a] * (g.kernel[a] - 1);
    }
    if (possible) check_all(sized(g));
  }
}

void check_winograd(ConvGeometry g) {
  g.algorithm = ConvAlgorithm::kWinograd;
  check<float>(g, 4e-6);
  check<float16>(g, 6e-4);
  check<bfloat16>(g, 5e-3);
}

TEST(Conv, Winograd) {
  for (int64_t size : {1, 2, 3, 5, 6, 7, 12, 17}) {
    check_winograd(square(2, size, 24, 40, 3, 1, 1));
    check_winograd(square(1, size, 3, 5, 3, 1, 2));
    check_winograd(square(3, size, 36, 21, 3, 1, 1, 1, 3));
  }
  check_winograd(square(0, 5, 6, 7, 3, 1, 1));
  check_winograd(square(2, 30, 40, 70, 3, 1, 1));  // many blocks of tiles
  check_winograd(square(1, 4, 520, 70, 3, 1, 1));  // one, with weights transformed where they are used
  check_winograd(square(1, 22, 9, 200, 3, 1, 0));  // many ranges of outputs
  ConvGeometry space = square(2, 6, 10, 18, 3, 1, 1);
  space.spatial = 3;
  for (int64_t depth : {1, 2, 5}) {
    for (int64_t pad : {0, 1, 3}) {
      space.in[0] = depth;
      space.kernel[0] = std::min<int64_t>(3, depth + 2 * pad);
      space.pad_begin[0] = pad;
      space.pad_end[0] = pad;
      check_winograd(sized(space));
    }
  }
}

TEST(Conv, NoBiasAndEmptyBatch) {
  const ConvGeometry g = square(1, 5, 6, 7, 3, 1, 1);
  const Case c(g);
  const auto x = as<float>(c.x), weight = as<float>(c.weight), zeros = as<float>(Values(7, 0.0));
  std::vector<float> without(c.grad_y.size(), 1), with(c.grad_y.size(), 2);
  conv_forward(g, kFloat32, x.data(), weight.data(), nullptr, without.data());
  conv_forward(g, kFloat32, x.data(), weight.data(), zeros.data(), with.data());
  EXPECT_EQ(without, with);
  check_all(square(0, 5, 6, 7, 3, 1, 1));
  check_all(square(0, 5, 6, 6, 3, 1, 1, 1, 6));
}

TEST(Conv, RefusesIntegers) {
  EXPECT_THROW(conv_forward(square(1, 5, 6, 7, 3), kInt32, nullptr, nullptr, nullptr, nullptr), TypeError);
}

}  // namespace
}  // namespace opsin::cpu

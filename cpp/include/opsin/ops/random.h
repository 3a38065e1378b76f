// Random numbers. A call takes its numbers from `generator`, the default one of the device if null; the same
// seed gives the same numbers for any number of threads and on every device.
#pragma once

#include <opsin/random.h>
#include <opsin/tensor.h>

namespace opsin {

/// Uniform in [0, 1).
OPSIN_API Tensor rand(IntSpan size, DType dtype = default_dtype(), Generator* generator = nullptr,
                      Device device = kCPU);
/// Standard normal.
OPSIN_API Tensor randn(IntSpan size, DType dtype = default_dtype(), Generator* generator = nullptr,
                       Device device = kCPU);
inline Tensor rand(std::initializer_list<int64_t> size, DType dtype = default_dtype()) {
  return rand(IntSpan(size.begin(), size.size()), dtype);
}
inline Tensor randn(std::initializer_list<int64_t> size, DType dtype = default_dtype()) {
  return randn(IntSpan(size.begin(), size.size()), dtype);
}
/// Integers in [low, high).
OPSIN_API Tensor randint(int64_t low, int64_t high, IntSpan size, DType dtype = kInt64,
                         Generator* generator = nullptr, Device device = kCPU);
/// 0 ... n - 1 in random order.
OPSIN_API Tensor randperm(int64_t n, DType dtype = kInt64, Generator* generator = nullptr,
                          Device device = kCPU);
/// Overwrites `self` with numbers uniform in [from, to).
OPSIN_API Tensor uniform_(const Tensor& self, double from = 0, double to = 1, Generator* generator = nullptr);
/// Overwrites `self` with normal numbers.
OPSIN_API Tensor normal_(const Tensor& self, double mean = 0, double std = 1, Generator* generator = nullptr);
/// 1 with probability p, else 0.
OPSIN_API Tensor bernoulli_(const Tensor& self, double p = 0.5, Generator* generator = nullptr);
/// 1 with the probability that each element gives, else 0.
OPSIN_API Tensor bernoulli(const Tensor& self, Generator* generator = nullptr);
/// In training: zeroes each element with probability p and multiplies the others by 1 / (1 - p).
OPSIN_API Tensor dropout(const Tensor& input, double p = 0.5, bool training = true, bool inplace = false);

}  // namespace opsin

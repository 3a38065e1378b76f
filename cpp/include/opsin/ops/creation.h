// Tensors from nothing.
#pragma once

#include <opsin/tensor.h>

namespace opsin {

OPSIN_API Tensor full(IntSpan size, const Scalar& fill_value, DType dtype, Device device = kCPU);
OPSIN_API Tensor zeros(IntSpan size, DType dtype = default_dtype(), Device device = kCPU);
OPSIN_API Tensor ones(IntSpan size, DType dtype = default_dtype(), Device device = kCPU);
inline Tensor zeros(std::initializer_list<int64_t> size, DType dtype = default_dtype(),
                    Device device = kCPU) {
  return zeros(IntSpan(size.begin(), size.size()), dtype, device);
}
inline Tensor ones(std::initializer_list<int64_t> size, DType dtype = default_dtype(), Device device = kCPU) {
  return ones(IntSpan(size.begin(), size.size()), dtype, device);
}
/// start, start + step, ... below end. int64 if all three are integers, else the default float dtype.
OPSIN_API Tensor arange(const Scalar& start, const Scalar& end, const Scalar& step = 1,
                        std::optional<DType> dtype = std::nullopt, Device device = kCPU);
/// `steps` numbers from start to end, both included.
OPSIN_API Tensor linspace(double start, double end, int64_t steps, std::optional<DType> dtype = std::nullopt,
                          Device device = kCPU);
/// [n, m] with ones on the diagonal.
OPSIN_API Tensor eye(int64_t n, std::optional<int64_t> m = std::nullopt,
                     std::optional<DType> dtype = std::nullopt, Device device = kCPU);
/// Writes `value` to every element.
OPSIN_API Tensor fill_(const Tensor& self, const Scalar& value);
OPSIN_API Tensor zero_(const Tensor& self);

}  // namespace opsin

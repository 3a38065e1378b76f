// Tensors in the likeness of another.
#include <opsin/ops/creation.h>
#include <opsin/ops/random.h>

#include "core/registry.h"
#include "ops/creation/options.h"

namespace opsin {

namespace {

using OptDType = std::optional<DType>;
using OptDevice = std::optional<Device>;
using OptFormat = std::optional<std::string_view>;

/// Unset values with the strides of `self` where those are a dense order of its dimensions, else row-major.
Tensor empty_as(const Tensor& self, DType dtype, Device device) {
  if (self.is_contiguous()) return empty(self.sizes(), dtype, device);
  if (!is_dense(self.sizes(), self.strides())) return empty(self.sizes(), dtype, device);
  return empty_strided(self.sizes(), self.strides(), dtype, device);
}

const Tensor& with_grad(const Tensor& y, bool requires_grad) { return y.set_requires_grad(requires_grad); }

Tensor empty_like(const Tensor& self, OptDType dtype, OptDevice device, bool requires_grad, OptFormat) {
  return with_grad(empty_as(self, dtype.value_or(self.dtype()), device.value_or(self.device())),
                   requires_grad);
}
Tensor zeros_like(const Tensor& self, OptDType dtype, OptDevice device, bool requires_grad, OptFormat) {
  return with_grad(fill_(empty_as(self, dtype.value_or(self.dtype()), device.value_or(self.device())), 0),
                   requires_grad);
}
Tensor ones_like(const Tensor& self, OptDType dtype, OptDevice device, bool requires_grad, OptFormat) {
  return with_grad(fill_(empty_as(self, dtype.value_or(self.dtype()), device.value_or(self.device())), 1),
                   requires_grad);
}
Tensor full_like(const Tensor& self, const Scalar& value, OptDType dtype, OptDevice device,
                 bool requires_grad, OptFormat) {
  return with_grad(fill_(empty_as(self, dtype.value_or(self.dtype()), device.value_or(self.device())), value),
                   requires_grad);
}
Tensor rand_like(const Tensor& self, Generator* generator, OptDType dtype, OptDevice device,
                 bool requires_grad, OptFormat) {
  const Tensor y = rand(self.sizes(), dtype.value_or(self.dtype()), generator);
  return finish(y, device, requires_grad);
}
Tensor randn_like(const Tensor& self, Generator* generator, OptDType dtype, OptDevice device,
                  bool requires_grad, OptFormat) {
  const Tensor y = randn(self.sizes(), dtype.value_or(self.dtype()), generator);
  return finish(y, device, requires_grad);
}
Tensor randint_like(const Tensor& self, int64_t low, int64_t high, Generator* generator, OptDType dtype,
                    OptDevice device, bool requires_grad, OptFormat) {
  const Tensor y = randint(low, high, self.sizes(), dtype.value_or(self.dtype()), generator);
  return finish(y, device, requires_grad);
}
Tensor randint_like_high(const Tensor& self, int64_t high, Generator* generator, OptDType dtype,
                         OptDevice device, bool requires_grad, OptFormat format) {
  return randint_like(self, 0, high, generator, dtype, device, requires_grad, format);
}

Tensor new_empty(const Tensor& self, IntSpan size, OptDType dtype, OptDevice device, bool requires_grad) {
  return with_grad(empty(size, dtype.value_or(self.dtype()), device.value_or(self.device())), requires_grad);
}
Tensor new_zeros(const Tensor& self, IntSpan size, OptDType dtype, OptDevice device, bool requires_grad) {
  return with_grad(zeros(size, dtype.value_or(self.dtype()), device.value_or(self.device())), requires_grad);
}
Tensor new_ones(const Tensor& self, IntSpan size, OptDType dtype, OptDevice device, bool requires_grad) {
  return with_grad(ones(size, dtype.value_or(self.dtype()), device.value_or(self.device())), requires_grad);
}
Tensor new_full(const Tensor& self, IntSpan size, const Scalar& value, OptDType dtype, OptDevice device,
                bool requires_grad) {
  return with_grad(full(size, value, dtype.value_or(self.dtype()), device.value_or(self.device())),
                   requires_grad);
}

}  // namespace

void register_like(Registry& registry) {
#define OPSIN_LIKE                                                                         \
  ", *, dtype? dtype=None, device? device=None, bool requires_grad=False, memory_format? " \
  "memory_format=None) -> Tensor"
#define OPSIN_RANDOM_LIKE                                                                              \
  ", *, Generator? generator=None, dtype? dtype=None, device? device=None, bool requires_grad=False, " \
  "memory_format? memory_format=None) -> Tensor"
#define OPSIN_NEW ", *, dtype? dtype=None, device? device=None, bool requires_grad=False) -> Tensor"
  registry.add<&empty_like>("empty_like(Tensor input" OPSIN_LIKE,
                            "Unset values in the shape and dtype of `input`.");
  registry.add<&zeros_like>("zeros_like(Tensor input" OPSIN_LIKE, "Zeros in the shape and dtype of `input`.");
  registry.add<&ones_like>("ones_like(Tensor input" OPSIN_LIKE, "Ones in the shape and dtype of `input`.");
  registry.add<&full_like>("full_like(Tensor input, Number fill_value" OPSIN_LIKE,
                           "One value in the shape and dtype of `input`.");
  registry.add<&rand_like>("rand_like(Tensor input" OPSIN_RANDOM_LIKE,
                           "Uniform numbers in [0, 1) in the shape and dtype of `input`.");
  registry.add<&randn_like>("randn_like(Tensor input" OPSIN_RANDOM_LIKE,
                            "Standard normal numbers in the shape and dtype of `input`.");
  registry.add<&randint_like_high>("randint_like(Tensor input, int high" OPSIN_RANDOM_LIKE,
                                   "Integers in [0, high) in the shape and dtype of `input`.");
  registry.add<&randint_like>("randint_like(Tensor input, int low, int high" OPSIN_RANDOM_LIKE,
                              "Integers in [low, high) in the shape and dtype of `input`.");
  registry.add<&new_empty>("Tensor.new_empty(Tensor self, int[]... size" OPSIN_NEW,
                           "Unset values in this dtype.");
  registry.add<&new_zeros>("Tensor.new_zeros(Tensor self, int[]... size" OPSIN_NEW, "Zeros in this dtype.");
  registry.add<&new_ones>("Tensor.new_ones(Tensor self, int[]... size" OPSIN_NEW, "Ones in this dtype.");
  registry.add<&new_full>("Tensor.new_full(Tensor self, int[] size, Number fill_value" OPSIN_NEW,
                          "One value in this dtype.");
#undef OPSIN_LIKE
#undef OPSIN_RANDOM_LIKE
#undef OPSIN_NEW
}

}  // namespace opsin

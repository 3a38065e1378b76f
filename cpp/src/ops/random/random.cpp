// Random tensors. Value i of a call is a function of (seed, offset, i) alone (Philox), so that neither
// threads nor devices change it.
#include "random.h"

#include "random_kernels.h"

#include <cmath>

#include <opsin/ops/binary.h>
#include <opsin/ops/copy.h>
#include <opsin/ops/creation.h>
#include <opsin/ops/random.h>
#include <opsin/ops/view.h>

#include "core/call.h"
#include "core/promotion.h"
#include "core/registry.h"

namespace opsin {

constinit FillSlot uniform_fill("uniform_");
constinit FillSlot normal_fill("normal_");
constinit FillSlot bernoulli_fill("bernoulli_");
constinit FillSlot randint_fill("randint");
constinit FillSlot randperm_fill("randperm");
constinit KernelSlot<void (*)(const BernoulliParams&)> bernoulli_forward("bernoulli");

Generator& generator_for(Device device, Generator* generator) {
  if (!generator) return default_generator(device);
  OPSIN_CHECK(Error, generator->device().type == device.type, "generator: expected one for ", device.str(),
              ", got one for ", generator->device().str(), " (make it with Generator(device))");
  return *generator;
}

namespace {

/// Fills `y`, which is row-major, from a slot; `params` says what is particular to it.
void fill(const FillSlot& slot, const Tensor& y, Generator* generator, bool is_pair, FillParams params) {
  const auto kernel = slot.get(y.device(), y.dtype());
  params.count = y.numel();
  params.dtype = y.dtype();
  params.random = reserve_philox(generator_for(y.device(), generator),
                                 is_pair ? philox_blocks<2>(params.count) : philox_blocks<4>(params.count));
  params.out = y.impl()->mutable_data();
  kernel(params);
}

/// Runs `write` on `self` itself if it is dense, else on a dense stand-in that is copied back; in-place rules
/// apply.
template <class F>
Tensor overwrite(const Tensor& self, const char* op, F write) {
  const bool record = GradMode::is_enabled() && self.requires_grad();
  check_inference(self, op);
  check_no_overlap(self, op);
  if (record) check_recordable(self, op);
  const Tensor dense =
      self.is_contiguous() ? self.detach() : empty(self.sizes(), self.dtype(), self.device());
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

using OptDType = std::optional<DType>;
using OptDevice = std::optional<Device>;

Tensor rand_schema(IntSpan size, Generator* generator, OptDType dtype, OptDevice device, bool requires_grad) {
  (void)count_elements(size, "rand");
  return rand(size, dtype.value_or(default_dtype()), generator, device.value_or(kCPU))
      .set_requires_grad(requires_grad);
}
Tensor randn_schema(IntSpan size, Generator* generator, OptDType dtype, OptDevice device,
                    bool requires_grad) {
  (void)count_elements(size, "randn");
  return randn(size, dtype.value_or(default_dtype()), generator, device.value_or(kCPU))
      .set_requires_grad(requires_grad);
}
Tensor randint_schema(int64_t low, int64_t high, IntSpan size, Generator* generator, OptDType dtype,
                      OptDevice device, bool requires_grad) {
  return randint(low, high, size, dtype.value_or(kInt64), generator, device.value_or(kCPU))
      .set_requires_grad(requires_grad);
}
Tensor randint_high(int64_t high, IntSpan size, Generator* generator, OptDType dtype, OptDevice device,
                    bool requires_grad) {
  return randint_schema(0, high, size, generator, dtype, device, requires_grad);
}
Tensor randperm_schema(int64_t n, Generator* generator, OptDType dtype, OptDevice device,
                       bool requires_grad) {
  return randperm(n, dtype.value_or(kInt64), generator, device.value_or(kCPU))
      .set_requires_grad(requires_grad);
}
Tensor bernoulli_p(const Tensor& self, double p, Generator* generator) {
  return bernoulli_(empty(self.sizes(), self.dtype(), self.device()), p, generator);
}
Tensor bernoulli_tensor_(const Tensor& self, const Tensor& p, Generator* generator) {
  return copy_(self, bernoulli(expand(p, self.sizes()), generator));
}
Tensor normal_size(double mean, double std, IntSpan size, Generator* generator, OptDType dtype,
                   OptDevice device, bool requires_grad) {
  const Tensor y = empty(size, dtype.value_or(default_dtype()), device.value_or(kCPU));
  return normal_(y, mean, std, generator).set_requires_grad(requires_grad);
}
Tensor normal_tensor(const Tensor& mean, const Tensor& std, Generator* generator) {
  const NoGradGuard no_grad;
  const DType dtype = floating_type(result_type({&mean, &std}));
  const Device device = mean.device().is_cpu() ? std.device() : mean.device();
  const Tensor noise = randn(broadcast_shapes(mean.sizes(), std.sizes(), "normal"), dtype, generator, device);
  return add(mul(noise, std), mean);
}
/// Integers in [from, to); for floating point the range in which every integer is exact.
Tensor random_(const Tensor& self, int64_t from, std::optional<int64_t> to, Generator* generator) {
  const int64_t limits[kNumDTypes] = {2,         256,  128, 32768,         int64_t{1} << 31,
                                      INT64_MAX, 2049, 257, (1 << 24) + 1, (int64_t{1} << 53) + 1};
  const int64_t end = to.value_or(limits[static_cast<int>(self.dtype())]);
  OPSIN_CHECK(Error, from < end, "random_: expects 'from' to be less than 'to', but got from=", from,
              " >= to=", end);
  return overwrite(self, "random_", [&](const Tensor& y) {
    copy_(y, randint(from, end, y.sizes(), kInt64, generator, y.device()));
  });
}
Tensor random_to_(const Tensor& self, int64_t to, Generator* generator) {
  return random_(self, 0, to, generator);
}

}  // namespace

Tensor uniform_(const Tensor& self, double from, double to, Generator* generator) {
  OPSIN_CHECK(Error, from <= to, "uniform_: expects to return a [from, to) range, but found from=", from,
              " > to=", to);
  return overwrite(self, "uniform_", [&](const Tensor& y) {
    fill(uniform_fill, y, generator, y.dtype() == kFloat64, {.a = from, .b = to - from});
  });
}

Tensor normal_(const Tensor& self, double mean, double std, Generator* generator) {
  OPSIN_CHECK(Error, std >= 0, "normal_: expects std >= 0.0, but found std ", std);
  return overwrite(self, "normal_", [&](const Tensor& y) {
    fill(normal_fill, y, generator, y.dtype() == kFloat64, {.a = mean, .b = std});
  });
}

Tensor bernoulli_(const Tensor& self, double p, Generator* generator) {
  OPSIN_CHECK(Error, p >= 0 && p <= 1, "bernoulli_: expects p to be in [0, 1], but got p=", p);
  return overwrite(self, "bernoulli_", [&](const Tensor& y) {
    // As integers: the product is exact.
    fill(bernoulli_fill, y, generator, false, {.limit = static_cast<uint32_t>(std::ceil(p * 0x1p24))});
  });
}

Tensor bernoulli(const Tensor& self, Generator* generator) {
  const Tensor p = contiguous(self.detach());
  const Tensor y = empty(p.sizes(), p.dtype(), p.device());
  const auto kernel = bernoulli_forward.get(p.device(), p.dtype());
  const PhiloxSeed random = reserve_philox(generator_for(p.device(), generator), philox_blocks<4>(p.numel()));
  kernel({p.impl()->data(), y.impl()->mutable_physical_data(), p.numel(), p.dtype(), random});
  return y;
}

Tensor rand(IntSpan size, DType dtype, Generator* generator, Device device) {
  return uniform_(empty(size, dtype, device), 0, 1, generator);
}
Tensor randn(IntSpan size, DType dtype, Generator* generator, Device device) {
  return normal_(empty(size, dtype, device), 0, 1, generator);
}

Tensor randint(int64_t low, int64_t high, IntSpan size, DType dtype, Generator* generator, Device device) {
  OPSIN_CHECK(Error, low < high, "randint: from should be < to, but got ", low, " >= ", high);
  const Tensor y = empty(size, dtype, device);
  fill(randint_fill, y, generator, true,
       {.low = low, .range = static_cast<uint64_t>(high) - static_cast<uint64_t>(low)});
  return y;
}

Tensor randperm(int64_t n, DType dtype, Generator* generator, Device device) {
  OPSIN_CHECK(Error, n >= 0, "randperm: n must be non-negative, got ", n);
  const Tensor order = empty({n}, kInt64, device);
  const auto kernel = randperm_fill.get(device, kInt64);
  const PhiloxSeed random = reserve_philox(generator_for(device, generator), static_cast<uint64_t>(n));
  kernel({.out = order.impl()->mutable_physical_data(), .count = n, .dtype = kInt64, .random = random});
  return to(order, dtype);
}

void register_random(Registry& registry) {
  register_random_cpu();
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
  register_multinomial(registry);
  register_dropout(registry);
}

}  // namespace opsin

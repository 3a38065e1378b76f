// Tensors from nothing: fills and ranges.
#include "creation_kernels.h"
#include "creation_math.h"

#include <cmath>
#include <cstring>

#include <opsin/ops/copy.h>
#include <opsin/ops/creation.h>
#include <opsin/ops/view.h>

#include "core/backend.h"
#include "core/call.h"
#include "core/dispatch.h"
#include "core/elementwise.h"
#include "core/registry.h"
#include "ops/creation/options.h"
#include "ops/view/overlap.h"

namespace opsin {

constinit KernelSlot<void (*)(const RangeParams&)> range_forward("arange");
constinit KernelSlot<void (*)(const TriangleParams&)> triangle_forward("tril_indices");

Tensor wrap_number(const Scalar& value, DType dtype) {
  // Wide, because the operand it meets may be; promotion counts only the kind.
  dtype = is_floating_point(dtype) ? kFloat64 : is_complex(dtype) ? kComplex128 : dtype;
  Tensor tensor = empty(IntSpan{}, dtype);
  store_scalar(value, dtype, tensor.impl()->mutable_data());
  tensor.impl()->wrapped_number = true;
  return tensor;
}

void register_like(Registry& registry);

namespace {

using OptDType = std::optional<DType>;
using OptDevice = std::optional<Device>;

/// y = value everywhere; the old value of y gets no gradient.
struct Fill {
  static constexpr const char* kName = "fill_";
  using Params = Scalar;
  static void forward_into(Tensor& y, const Params& value, const Tensor&) {
    const Tensor number = wrap_number(value, y.dtype());
    copy_(y.detach(), number);
  }
  static void backward(Backward& ctx, const Params&) {
    ctx.set(0, zeros(ctx.grad().sizes(), ctx.grad().dtype(), ctx.grad().device()));
  }
};

/// A range of `count` numbers.
Tensor generate(int64_t count, DType dtype, Device device, const char* op, RangeParams params) {
  if (is_complex(dtype)) detail::raise_unsupported(op, dtype);
  const Tensor y = empty(Dims{count}, dtype, device);
  if (count == 0) return y;
  params.dtype = dtype;
  params.count = count;
  params.out = y.impl()->mutable_data();
  range_forward.get(device, dtype)(params);
  return y;
}

/// kLinear, or kPowers of `base`.
Tensor generate_linear(RangeParams::Kind kind, double start, double end, int64_t steps, double base,
                       DType dtype, Device device, const char* op) {
  OPSIN_CHECK(Error, steps >= 0, op, ": number of steps must be non-negative, got ", steps);
  RangeParams params{};
  params.kind = kind;
  params.start = start;
  params.end = end;
  params.by = steps > 1 ? (end - start) / static_cast<double>(steps - 1) : 0;
  params.base = base;
  return generate(steps, dtype, device, op, params);
}

DType or_default(OptDType dtype) { return dtype.value_or(default_dtype()); }
Device or_cpu(OptDevice device) { return device.value_or(kCPU); }
const Tensor& with_grad(const Tensor& y, bool requires_grad) { return y.set_requires_grad(requires_grad); }

Tensor empty_schema(IntSpan size, OptDType dtype, OptDevice device, bool requires_grad,
                    std::optional<std::string_view>) {
  (void)count_elements(size, "empty");
  return with_grad(empty(size, or_default(dtype), or_cpu(device)), requires_grad);
}
Tensor zeros_schema(IntSpan size, OptDType dtype, OptDevice device, bool requires_grad) {
  (void)count_elements(size, "zeros");
  return with_grad(zeros(size, or_default(dtype), or_cpu(device)), requires_grad);
}
Tensor ones_schema(IntSpan size, OptDType dtype, OptDevice device, bool requires_grad) {
  (void)count_elements(size, "ones");
  return with_grad(ones(size, or_default(dtype), or_cpu(device)), requires_grad);
}
Tensor full_schema(IntSpan size, const Scalar& value, OptDType dtype, OptDevice device, bool requires_grad) {
  (void)count_elements(size, "full");
  return with_grad(full(size, value, dtype.value_or(value.dtype()), or_cpu(device)), requires_grad);
}
Tensor empty_strided_schema(IntSpan size, IntSpan stride, OptDType dtype, OptDevice device,
                            bool requires_grad) {
  return with_grad(empty_strided(size, stride, or_default(dtype), or_cpu(device)), requires_grad);
}
Tensor arange_end(const Scalar& end, OptDType dtype, OptDevice device, bool requires_grad) {
  return with_grad(arange(0, end, 1, dtype, or_cpu(device)), requires_grad);
}
Tensor arange_schema(const Scalar& start, const Scalar& end, const Scalar& step, OptDType dtype,
                     OptDevice device, bool requires_grad) {
  return with_grad(arange(start, end, step, dtype, or_cpu(device)), requires_grad);
}
Tensor linspace_schema(double start, double end, int64_t steps, OptDType dtype, OptDevice device,
                       bool requires_grad) {
  return with_grad(linspace(start, end, steps, dtype, or_cpu(device)), requires_grad);
}
Tensor logspace_schema(double start, double end, int64_t steps, double base, OptDType dtype, OptDevice device,
                       bool requires_grad) {
  return with_grad(generate_linear(RangeParams::Kind::kPowers, start, end, steps, base, or_default(dtype),
                                   or_cpu(device), "logspace"),
                   requires_grad);
}
Tensor eye_schema(int64_t n, OptDType dtype, OptDevice device, bool requires_grad) {
  return with_grad(eye(n, std::nullopt, dtype, or_cpu(device)), requires_grad);
}
Tensor eye_rectangle(int64_t n, int64_t m, OptDType dtype, OptDevice device, bool requires_grad) {
  return with_grad(eye(n, m, dtype, or_cpu(device)), requires_grad);
}
Tensor fill_tensor_(const Tensor& self, const Tensor& value) {
  OPSIN_CHECK(ShapeError, value.dim() == 0,
              "fill_: only supports 0-dimension value tensor but got tensor with ", value.dim(),
              " dimensions.");
  return copy_(self, value);
}

/// Positions (row, column) of a triangle of a [rows, cols] matrix as [2, count].
Tensor triangle_indices(int64_t rows, int64_t cols, int64_t offset, bool upper, OptDType dtype,
                        OptDevice device, bool requires_grad) {
  OPSIN_CHECK(Error, rows >= 0 && cols >= 0, upper ? "triu_indices" : "tril_indices",
              ": expected non-negative sizes, got ", rows, " and ", cols);
  // Beyond the matrix nothing changes, and sums with a row number must not overflow.
  TriangleParams params{rows, cols, std::clamp(offset, -rows - 1, cols + 1), upper, 0, nullptr};
  params.count = triangle_before(params, rows);
  const Tensor y = empty({2, params.count}, kInt64, or_cpu(device));
  params.out = y.mutable_data<int64_t>();
  if (params.count > 0) triangle_forward.get(y.device(), kInt64)(params);
  return with_grad(to(y, dtype.value_or(kInt64)), requires_grad);
}
Tensor tril_indices(int64_t row, int64_t col, int64_t offset, OptDType dtype, OptDevice device,
                    bool requires_grad) {
  return triangle_indices(row, col, offset, /*upper=*/false, dtype, device, requires_grad);
}
Tensor triu_indices(int64_t row, int64_t col, int64_t offset, OptDType dtype, OptDevice device,
                    bool requires_grad) {
  return triangle_indices(row, col, offset, /*upper=*/true, dtype, device, requires_grad);
}

}  // namespace

Tensor full(IntSpan size, const Scalar& fill_value, DType dtype, Device device) {
  const Tensor y = empty(size, dtype, device);
  if (y.numel() > 0) copy_(y, wrap_number(fill_value, dtype));
  return y;
}

Tensor zeros(IntSpan size, DType dtype, Device device) {
  const Tensor y = empty(size, dtype, device);
  if (y.numel() == 0) return y;
  void* const data = y.impl()->mutable_data();
  const size_t bytes = y.impl()->storage->bytes;
  if (device.is_cpu()) {
    std::memset(data, 0, bytes);
  } else {
    backend(device).fill_zero(data, bytes, device);
  }
  return y;
}

Tensor ones(IntSpan size, DType dtype, Device device) { return full(size, 1, dtype, device); }

Tensor arange(const Scalar& start, const Scalar& end, const Scalar& step, std::optional<DType> dtype,
              Device device) {
  const bool whole = start.is_integral() && end.is_integral() && step.is_integral();
  const double first = start.to_double(), last = end.to_double(), by = step.to_double();
  OPSIN_CHECK(Error, by != 0, "arange: step must be nonzero, got ", by);
  OPSIN_CHECK(Error, std::isfinite(first) && std::isfinite(last), "arange: unsupported range: ", first,
              " -> ", last);
  OPSIN_CHECK(Error, (by > 0) == (last >= first) || last == first,
              "arange: upper bound and lower bound inconsistent with step sign, got start ", first, ", end ",
              last, ", step ", by);
  const DType result = dtype.value_or(whole ? kInt64 : default_dtype());
  if (whole || is_integral(result)) {
    // As PyTorch: the bounds are cut off to integers first.
    const int64_t a = start.to_int(), s = step.to_int();
    OPSIN_CHECK(Error, s != 0, "arange: step must be nonzero, got ", by, " as an integer");
    // The unsigned difference cannot overflow.
    const auto span =
        static_cast<uint64_t>(s > 0 ? end.to_int() : a) - static_cast<uint64_t>(s > 0 ? a : end.to_int());
    const uint64_t stride = s > 0 ? static_cast<uint64_t>(s) : ~static_cast<uint64_t>(s) + 1;
    const uint64_t count = span / stride + (span % stride != 0);
    OPSIN_CHECK(ShapeError, count <= static_cast<uint64_t>(INT64_MAX / 16), "arange: ", count,
                " elements are too many");
    RangeParams params{};
    params.kind = RangeParams::Kind::kIntegers;
    params.first = a;
    params.step = s;
    return generate(static_cast<int64_t>(count), result, device, "arange", params);
  }
  const double count = std::ceil((last - first) / by);
  OPSIN_CHECK(ShapeError, count < 1e18, "arange: ", count, " elements are too many");
  RangeParams params{};
  params.kind = RangeParams::Kind::kReals;
  params.start = first;
  params.by = by;
  return generate(static_cast<int64_t>(count), result, device, "arange", params);
}

Tensor linspace(double start, double end, int64_t steps, std::optional<DType> dtype, Device device) {
  return generate_linear(RangeParams::Kind::kLinear, start, end, steps, 0, or_default(dtype), device,
                         "linspace");
}

Tensor eye(int64_t n, std::optional<int64_t> m, std::optional<DType> dtype, Device device) {
  OPSIN_CHECK(Error, n >= 0 && m.value_or(0) >= 0, "eye: expected non-negative sizes, got ", n >= 0 ? *m : n);
  const int64_t cols = m.value_or(n);
  const Tensor y = zeros(Dims{n, cols}, or_default(dtype), device);
  if (y.numel() > 0) fill_(as_strided(y, Dims{std::min(n, cols)}, Dims{cols + 1}, std::nullopt), 1);
  return y;
}

Tensor fill_(const Tensor& self, const Scalar& value) {
  call_inplace<Fill>(value, without_repeats(self));
  return self;
}
Tensor zero_(const Tensor& self) { return fill_(self, 0); }

void register_creation(Registry& registry) {
  register_creation_cpu();
#define OPSIN_OPTIONS "dtype? dtype=None, device? device=None, bool requires_grad=False"
  registry.add<&empty_schema>("empty(int[]... size, *, " OPSIN_OPTIONS
                              ", memory_format? memory_format=None) -> Tensor",
                              "A tensor whose values are not set.");
  registry.add<&zeros_schema>("zeros(int[]... size, *, " OPSIN_OPTIONS ") -> Tensor", "A tensor of zeros.");
  registry.add<&ones_schema>("ones(int[]... size, *, " OPSIN_OPTIONS ") -> Tensor", "A tensor of ones.");
  registry.add<&full_schema>("full(int[] size, Number fill_value, *, " OPSIN_OPTIONS ") -> Tensor",
                             "A tensor of one value; its dtype is the value's unless given.");
  registry.add<&empty_strided_schema>("empty_strided(int[] size, int[] stride, *, " OPSIN_OPTIONS
                                      ") -> Tensor",
                                      "A tensor with the given strides whose values are not set.");
  registry.add<&arange_end>("arange(Number end, *, " OPSIN_OPTIONS ") -> Tensor", "0, 1, ... below end.");
  registry.add<&arange_schema>("arange(Number start, Number end, Number step=1, *, " OPSIN_OPTIONS
                               ") -> Tensor",
                               "start, start + step, ... below end.");
  registry.add<&linspace_schema>("linspace(float start, float end, int steps, *, " OPSIN_OPTIONS
                                 ") -> Tensor",
                                 "`steps` numbers from start to end, both included.");
  registry.add<&logspace_schema>(
      "logspace(float start, float end, int steps, float base=10.0, *, " OPSIN_OPTIONS ") -> Tensor",
      "base to the power of `steps` numbers from start to end.");
  registry.add<&eye_schema>("eye(int n, *, " OPSIN_OPTIONS ") -> Tensor",
                            "[n, n] with ones on the diagonal.");
  registry.add<&eye_rectangle>("eye(int n, int m, *, " OPSIN_OPTIONS ") -> Tensor",
                               "[n, m] with ones on the diagonal.");
  registry.add<&tril_indices>("tril_indices(int row, int col, int offset=0, *, " OPSIN_OPTIONS ") -> Tensor",
                              "Positions [2, count] of the lower triangle of a [row, col] matrix.");
  registry.add<&triu_indices>("triu_indices(int row, int col, int offset=0, *, " OPSIN_OPTIONS ") -> Tensor",
                              "Positions [2, count] of the upper triangle of a [row, col] matrix.");
#undef OPSIN_OPTIONS
  registry.add<&fill_tensor_>("Tensor.fill_(Tensor self, Tensor value) -> Tensor",
                              "Writes a 0-d tensor to every element.");
  registry.add<&fill_>("Tensor.fill_(Tensor self, Number value) -> Tensor",
                       "Writes `value` to every element.");
  registry.add<&zero_>("Tensor.zero_(Tensor self) -> Tensor", "Writes 0 to every element.");
  register_like(registry);
}

}  // namespace opsin

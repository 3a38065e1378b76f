// Tensors from nothing: fills and ranges.
#include <cmath>
#include <cstring>

#include <opsin/ops/copy.h>
#include <opsin/ops/creation.h>
#include <opsin/ops/view.h>

#include "core/call.h"
#include "core/dispatch.h"
#include "core/elementwise.h"
#include "core/registry.h"
#include "cpu/thread_pool.h"
#include "ops/creation/options.h"
#include "ops/view/overlap.h"

namespace opsin {

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

/// y[i] = f(i), written by several threads.
template <class F>
Tensor generate(int64_t count, DType dtype, const char* op, F f) {
  const Tensor y = empty(Dims{count}, dtype);
  dispatch_real(dtype, op, [&]<class T>() {
    T* data = y.mutable_data<T>();
    cpu::parallel_for(count, 32768, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) data[i] = Scalar(f(i)).template to<T>();
    });
  });
  return y;
}

DType or_default(OptDType dtype) { return dtype.value_or(default_dtype()); }

Tensor empty_schema(IntSpan size, OptDType dtype, OptDevice device, bool requires_grad,
                    std::optional<std::string_view>) {
  (void)count_elements(size, "empty");
  return finish(empty(size, or_default(dtype)), device, requires_grad);
}
Tensor zeros_schema(IntSpan size, OptDType dtype, OptDevice device, bool requires_grad) {
  (void)count_elements(size, "zeros");
  return finish(zeros(size, or_default(dtype)), device, requires_grad);
}
Tensor ones_schema(IntSpan size, OptDType dtype, OptDevice device, bool requires_grad) {
  (void)count_elements(size, "ones");
  return finish(ones(size, or_default(dtype)), device, requires_grad);
}
Tensor full_schema(IntSpan size, const Scalar& value, OptDType dtype, OptDevice device, bool requires_grad) {
  (void)count_elements(size, "full");
  return finish(full(size, value, dtype.value_or(value.dtype())), device, requires_grad);
}
Tensor empty_strided_schema(IntSpan size, IntSpan stride, OptDType dtype, OptDevice device,
                            bool requires_grad) {
  return finish(empty_strided(size, stride, or_default(dtype)), device, requires_grad);
}
Tensor arange_end(const Scalar& end, OptDType dtype, OptDevice device, bool requires_grad) {
  return finish(arange(0, end, 1, dtype), device, requires_grad);
}
Tensor arange_schema(const Scalar& start, const Scalar& end, const Scalar& step, OptDType dtype,
                     OptDevice device, bool requires_grad) {
  return finish(arange(start, end, step, dtype), device, requires_grad);
}
Tensor linspace_schema(double start, double end, int64_t steps, OptDType dtype, OptDevice device,
                       bool requires_grad) {
  return finish(linspace(start, end, steps, dtype), device, requires_grad);
}
Tensor logspace_schema(double start, double end, int64_t steps, double base, OptDType dtype, OptDevice device,
                       bool requires_grad) {
  const Tensor exponents = linspace(start, end, steps, kFloat64);
  const double* from = exponents.data<double>();
  return finish(
      generate(steps, or_default(dtype), "logspace", [=](int64_t i) { return std::pow(base, from[i]); }),
      device, requires_grad);
}
Tensor eye_schema(int64_t n, OptDType dtype, OptDevice device, bool requires_grad) {
  return finish(eye(n, std::nullopt, dtype), device, requires_grad);
}
Tensor eye_rectangle(int64_t n, int64_t m, OptDType dtype, OptDevice device, bool requires_grad) {
  return finish(eye(n, m, dtype), device, requires_grad);
}
Tensor fill_tensor_(const Tensor& self, const Tensor& value) {
  OPSIN_CHECK(ShapeError, value.dim() == 0,
              "fill_: only supports 0-dimension value tensor but got tensor with ", value.dim(),
              " dimensions.");
  return copy_(self, value);
}

/// Positions (row, column) of a triangle of a [rows, cols] matrix as [2, count].
template <class Inside>
Tensor triangle_indices(int64_t rows, int64_t cols, OptDType dtype, const char* op, Inside inside) {
  OPSIN_CHECK(Error, rows >= 0 && cols >= 0, op, ": expected non-negative sizes, got ", rows, " and ", cols);
  std::vector<int64_t> row_of, col_of;
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < cols; ++j) {
      if (!inside(i, j)) continue;
      row_of.push_back(i);
      col_of.push_back(j);
    }
  }
  const auto count = static_cast<int64_t>(row_of.size());
  const Tensor y = empty({2, count}, kInt64);
  std::copy(row_of.begin(), row_of.end(), y.mutable_data<int64_t>());
  std::copy(col_of.begin(), col_of.end(), y.mutable_data<int64_t>() + count);
  return to(y, dtype.value_or(kInt64));
}
Tensor tril_indices(int64_t row, int64_t col, int64_t offset, OptDType dtype, OptDevice device,
                    bool requires_grad) {
  const auto inside = [=](int64_t i, int64_t j) { return j - i <= offset; };
  return finish(triangle_indices(row, col, dtype, "tril_indices", inside), device, requires_grad);
}
Tensor triu_indices(int64_t row, int64_t col, int64_t offset, OptDType dtype, OptDevice device,
                    bool requires_grad) {
  const auto inside = [=](int64_t i, int64_t j) { return j - i >= offset; };
  return finish(triangle_indices(row, col, dtype, "triu_indices", inside), device, requires_grad);
}

}  // namespace

Tensor full(IntSpan size, const Scalar& fill_value, DType dtype, Device device) {
  const Tensor y = empty(size, dtype, device);
  if (y.numel() > 0) copy_(y, wrap_number(fill_value, dtype));
  return y;
}

Tensor zeros(IntSpan size, DType dtype, Device device) {
  const Tensor y = empty(size, dtype, device);
  if (y.numel() > 0) std::memset(y.impl()->mutable_data(), 0, y.impl()->storage->bytes);
  return y;
}

Tensor ones(IntSpan size, DType dtype, Device device) { return full(size, 1, dtype, device); }

Tensor arange(const Scalar& start, const Scalar& end, const Scalar& step, std::optional<DType> dtype) {
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
    return generate(static_cast<int64_t>(count), result, "arange", [=](int64_t i) { return a + i * s; });
  }
  const double count = std::ceil((last - first) / by);
  OPSIN_CHECK(ShapeError, count < 1e18, "arange: ", count, " elements are too many");
  return generate(static_cast<int64_t>(count), result, "arange",
                  [=](int64_t i) { return first + static_cast<double>(i) * by; });
}

Tensor linspace(double start, double end, int64_t steps, std::optional<DType> dtype) {
  OPSIN_CHECK(Error, steps >= 0, "linspace: number of steps must be non-negative, got ", steps);
  const DType result = or_default(dtype);
  const double step = steps > 1 ? (end - start) / static_cast<double>(steps - 1) : 0;
  // From both ends, so that the last number is `end` itself.
  return generate(steps, result, "linspace", [=](int64_t i) {
    return i < steps / 2 || steps == 1 ? start + step * static_cast<double>(i)
                                       : end - step * static_cast<double>(steps - 1 - i);
  });
}

Tensor eye(int64_t n, std::optional<int64_t> m, std::optional<DType> dtype) {
  OPSIN_CHECK(Error, n >= 0 && m.value_or(0) >= 0, "eye: expected non-negative sizes, got ", n >= 0 ? *m : n);
  const int64_t cols = m.value_or(n);
  const Tensor y = zeros(Dims{n, cols}, or_default(dtype));
  if (y.numel() > 0) fill_(as_strided(y, Dims{std::min(n, cols)}, Dims{cols + 1}, std::nullopt), 1);
  return y;
}

Tensor fill_(const Tensor& self, const Scalar& value) {
  call_inplace<Fill>(value, without_repeats(self));
  return self;
}
Tensor zero_(const Tensor& self) { return fill_(self, 0); }

void register_creation(Registry& registry) {
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

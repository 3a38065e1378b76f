// Fractional max pooling. With its positions fixed it is a gather, whose gradient adds up along the
// positions.
#include "fractional_pool_kernels.h"

#include <opsin/ops/creation.h>
#include <opsin/ops/fractional_pool.h>
#include <opsin/ops/random.h>
#include <opsin/ops/view.h>

#include "../reduce/along.h"
#include "autograd/autocast.h"
#include "core/call.h"
#include "core/registry.h"

namespace opsin {

constinit KernelSlot<void (*)(const FractionalPoolParams&)> fractional_max_pool_forward{
    "fractional_max_pool"};

namespace {

struct FractionalMaxPool {
  static constexpr const char* kName = "fractional_max_pool";
  struct Params {
    FractionalPoolParams kernel;
    Dims x_sizes, y_sizes;
  };
  static std::array<Tensor, 2> forward(const Params& params, const Tensor& x, const Tensor& samples) {
    const auto kernel = fractional_max_pool_forward.get(x.device(), x.dtype());
    const Tensor y = empty(params.y_sizes, x.dtype(), x.device());
    const Tensor positions = empty(params.y_sizes, kInt64, x.device());
    if (y.numel() == 0) return {y, positions};
    const Tensor from = contiguous(x), at = contiguous(samples);
    FractionalPoolParams p = params.kernel;
    p.x = from.impl()->data();
    p.samples = at.impl()->data();
    p.y = y.impl()->mutable_data();
    p.positions = positions.mutable_data<int64_t>();
    p.dtype = x.dtype();
    kernel(p);
    return {y, positions};
  }
  static void save(Saver& saver, const Params&, const Tensor&, const Tensor&,
                   const std::array<Tensor, 2>& y) {
    saver.save(0, y[1]);
  }
  static void backward(Backward& ctx, const Params& p) {
    if (!ctx.needs(0) || !ctx.grad(0).defined()) return;
    const FractionalPoolParams& k = p.kernel;
    const Tensor grad =
        put_along(flatten(ctx.grad(0), 2), 2, flatten(ctx.saved(0), 2), k.in[0] * k.in[1] * k.in[2]);
    ctx.set(0, reshape(grad, p.x_sizes));
  }
};

std::array<Tensor, 2> run(const char* op, size_t axes, const Tensor& input, IntSpan kernel_size,
                          IntSpan output_size, const Tensor& random_samples) {
  if (autocast::is_on(DeviceType::kCPU, input)) {
    return autocast::call<autocast::kFull>(run, op, axes, input, kernel_size, output_size, random_samples);
  }
  const auto rank = static_cast<int64_t>(axes);
  const bool unbatched = input.dim() == rank + 1;
  OPSIN_CHECK(ShapeError, unbatched || input.dim() == rank + 2, op, ": expected input of ", rank + 1,
              " (unbatched) or ", rank + 2, " dimensions, got ", str(input.sizes()));
  OPSIN_CHECK(ShapeError, !kernel_size.empty() && !output_size.empty(), op,
              ": expected a kernel_size and an output_size");
  const Dims kernel = per_axis(kernel_size, axes, 1, 1, op, "kernel_size");
  const Dims out = per_axis(output_size, axes, 1, 1, op, "output_size");
  const Tensor x = unbatched ? unsqueeze(input, 0) : input;
  FractionalMaxPool::Params params{.kernel = {}, .x_sizes = x.sizes(), .y_sizes = {x.size(0), x.size(1)}};
  FractionalPoolParams& p = params.kernel;
  p.planes = x.size(0) * x.size(1);
  p.axes = rank;
  for (int a = 0; a < 3; ++a) {
    p.in[a] = p.kernel[a] = p.out[a] = 1;
    p.sample[a] = -1;
  }
  for (size_t i = 0; i < axes; ++i) {
    const size_t axis = 3 - axes + i;
    p.in[axis] = x.size(static_cast<int64_t>(2 + i));
    p.kernel[axis] = kernel[i];
    p.out[axis] = out[i];
    p.sample[axis] = static_cast<int>(axes == 2 ? 1 - i : i);
    OPSIN_CHECK(ShapeError, out[i] + kernel[i] - 1 <= p.in[axis], op,
                ": expected output_size + kernel_size - 1 of at most ", p.in[axis], " on axis ", i,
                ", got output_size=", out[i], " and kernel_size=", kernel[i], " for input ",
                str(input.sizes()));
    params.y_sizes.push_back(out[i]);
  }
  const Dims wanted{x.size(0), x.size(1), rank};
  if (random_samples.defined()) {
    OPSIN_CHECK(ShapeError, random_samples.sizes() == wanted, op, ": expected _random_samples ", str(wanted),
                " (a batch of 1 for input without one), got ", str(random_samples.sizes()));
    OPSIN_CHECK(Error, random_samples.dtype() == input.dtype(), op,
                ": expected _random_samples to have the dtype ", name(input.dtype()), " of input, got ",
                name(random_samples.dtype()));
  }
  OPSIN_CHECK(TypeError, is_floating_point(input.dtype()), op,
              ": expected a floating-point dtype (float32, float64, float16, bfloat16), got ",
              name(input.dtype()));
  std::array<Tensor, 2> result = call<FractionalMaxPool>(
      params, x,
      random_samples.defined() ? random_samples.detach()
                               : rand(wanted, input.dtype(), nullptr, input.device()));
  if (unbatched) {
    for (Tensor& tensor : result) tensor = squeeze(tensor, Dims{0});
  }
  return result;
}

template <size_t kAxes>
TensorList schema(const Tensor& input, IntSpan kernel_size, IntSpan output_size, bool return_indices,
                  const Tensor& random_samples) {
  constexpr const char* kNames[] = {"", "fractional_max_pool1d", "fractional_max_pool2d",
                                    "fractional_max_pool3d"};
  std::array<Tensor, 2> result = run(kNames[kAxes], kAxes, input, kernel_size, output_size, random_samples);
  TensorList list{std::move(result[0])};
  if (return_indices) list.push_back(std::move(result[1]));
  return list;
}

}  // namespace

#define OPSIN_POOL(n)                                                                                  \
  std::array<Tensor, 2> fractional_max_pool##n##d(const Tensor& input, IntSpan kernel_size,            \
                                                  IntSpan output_size, const Tensor& random_samples) { \
    return run("fractional_max_pool" #n "d", n, input, kernel_size, output_size, random_samples);      \
  }
OPSIN_POOL(1)
OPSIN_POOL(2)
OPSIN_POOL(3)
#undef OPSIN_POOL

void register_fractional_pool(Registry& registry) {
  register_fractional_pool_cpu();
#define OPSIN_POOL(n)                                                                                    \
  registry.add<&schema<n>>("fractional.fractional_max_pool" #n "d(Tensor input, int[" #n                 \
                           "] kernel_size, int[" #n                                                      \
                           "] output_size, bool return_indices=False, Tensor? _random_samples=None) -> " \
                           "Tensor|Tensor[]",                                                            \
                           "The largest value of windows that start at pseudo-random places.");
  OPSIN_POOL(1)
  OPSIN_POOL(2)
  OPSIN_POOL(3)
#undef OPSIN_POOL
}

}  // namespace opsin

// The partial inverse of max pooling: a scatter along the spatial axes taken as one.
#include <opsin/ops/creation.h>
#include <opsin/ops/max_unpool.h>
#include <opsin/ops/view.h>

#include "../conv/conv_padding.h"
#include "../index/rows.h"
#include "../pool/pool_named.h"
#include "autograd/autocast.h"
#include "core/registry.h"

namespace opsin {

namespace {

Dims sizes_of_output(const char* op, size_t axes, IntSpan sizes, IntSpan kernel_size, IntSpan stride,
                     PoolPadding padding, std::optional<IntSpan> output_size) {
  OPSIN_CHECK(ShapeError, !kernel_size.empty(), op, ": expected a kernel_size");
  const Dims kernel = per_axis(kernel_size, axes, 1, 1, op, "kernel_size");
  const Dims step = stride.empty() ? kernel : per_axis(stride, axes, 1, 1, op, "stride");
  const bool named = !padding.name.empty();
  if (named) check_padding_name(op, padding.name, step);
  const bool multiple = named && padding.name != "valid";
  const ConvSides sides = conv_sides(op, axes, padding.numbers);
  const size_t leading = sizes.size() - axes;
  Dims result(sizes.first(leading));
  for (size_t i = 0; i < axes; ++i) {
    const int64_t size = sizes[leading + i];
    result.push_back(multiple ? size * step[i]
                              : (size - 1) * step[i] - sides.begin[i] - sides.end[i] + kernel[i]);
  }
  if (output_size) {
    IntSpan wanted = *output_size;
    if (wanted.size() == axes + 2) wanted = wanted.subspan(2);
    OPSIN_CHECK(ShapeError, wanted.size() == axes, op, ": expected output_size to have ", axes, " or ",
                axes + 2, " entries, got ", str(*output_size));
    for (size_t i = 0; i < axes; ++i) {
      const int64_t usual = result[leading + i];
      OPSIN_CHECK(ShapeError, wanted[i] > usual - step[i] && wanted[i] < usual + step[i], op,
                  ": invalid output_size ", str(wanted), ", axis ", i, " must be between ",
                  usual - step[i] + 1, " and ", usual + step[i] - 1, " for input ", str(sizes));
      result[leading + i] = wanted[i];
    }
  }
  for (size_t i = 0; i < axes; ++i) {
    OPSIN_CHECK(ShapeError, result[leading + i] >= 0, op, ": the output size ", result[leading + i],
                " on axis ", i, " is below 0 for input ", str(sizes), " and padding (", sides.begin[i], ", ",
                sides.end[i], ") (give an output_size)");
  }
  return result;
}

Tensor unpool(const char* op, size_t axes, const Tensor& input, const Tensor& indices, IntSpan kernel_size,
              IntSpan stride, PoolPadding padding, std::optional<IntSpan> output_size) {
  if (autocast::is_on(DeviceType::kCPU, input)) {
    return autocast::call<autocast::kFull>(unpool, op, axes, input, indices, kernel_size, stride, padding,
                                           output_size);
  }
  const auto rank = static_cast<int64_t>(axes);
  OPSIN_CHECK(ShapeError, input.dim() == rank + 1 || input.dim() == rank + 2, op, ": expected input of ",
              rank + 1, " (unbatched) or ", rank + 2, " dimensions, got ", str(input.sizes()));
  OPSIN_CHECK(Error, indices.dtype() == kInt64, op, ": elements in indices should be type int64, got ",
              name(indices.dtype()), " (take those that max pooling returns)");
  OPSIN_CHECK(ShapeError, indices.sizes() == input.sizes(), op,
              ": expected shape of indices to be the same as that of the input, got ", str(indices.sizes()),
              " and ", str(input.sizes()));
  const Dims sizes = sizes_of_output(op, axes, input.sizes(), kernel_size, stride, padding, output_size);
  const int64_t spatial = input.dim() - rank;
  int64_t pixels = 1;
  for (size_t d = sizes.size() - axes; d < sizes.size(); ++d) pixels *= sizes[d];
  Dims flat(IntSpan(sizes).first(sizes.size() - axes));
  flat.push_back(pixels);
  const Tensor y = zeros(flat, input.dtype(), input.device());
  const Tensor at = flatten(checked_indices(indices, spatial, pixels, /*allow_negative=*/false, op), spatial);
  scatter_along_(y, at, flatten(input, spatial), geometry_along(y, spatial, at.size(spatial), op),
                 /*accumulate=*/false);
  return reshape(y, sizes);
}

template <size_t kAxes, class Padding>
Tensor unpool_schema(const Tensor& input, const Tensor& indices, IntSpan kernel_size,
                     std::optional<IntSpan> stride, Padding padding, std::optional<IntSpan> output_size) {
  constexpr const char* kNames[] = {"", "max_unpool1d", "max_unpool2d", "max_unpool3d"};
  return unpool(kNames[kAxes], kAxes, input, indices, kernel_size, stride.value_or(IntSpan()), padding,
                output_size);
}

}  // namespace

#define OPSIN_UNPOOL(n, Padding)                                                                           \
  Tensor max_unpool##n##d(const Tensor& input, const Tensor& indices, IntSpan kernel_size, IntSpan stride, \
                          Padding padding, std::optional<IntSpan> output_size) {                           \
    return unpool("max_unpool" #n "d", n, input, indices, kernel_size, stride, padding, output_size);      \
  }
OPSIN_UNPOOL(1, IntSpan)
OPSIN_UNPOOL(2, IntSpan)
OPSIN_UNPOOL(3, IntSpan)
OPSIN_UNPOOL(1, std::string_view)
OPSIN_UNPOOL(2, std::string_view)
OPSIN_UNPOOL(3, std::string_view)
#undef OPSIN_UNPOOL

void register_max_unpool(Registry& registry) {
#define OPSIN_UNPOOL(n, Padding, padding)                                                              \
  registry.add<&unpool_schema<n, Padding>>(                                                            \
      "nn.functional.max_unpool" #n "d(Tensor input, Tensor indices, int[" #n "] kernel_size, int[" #n \
      "]? stride=None, " padding ", int[]? output_size=None) -> Tensor",                               \
      "Zeros with the values of `input` at the positions that max pooling returned. padding: as that " \
      "pooling had it; by a name other than 'valid' the output is `stride` times as large.");
  OPSIN_UNPOOL(1, IntSpan, "int[1] padding=0")
  OPSIN_UNPOOL(1, std::string_view, "str padding='valid'")
  OPSIN_UNPOOL(2, IntSpan, "int[2] padding=0")
  OPSIN_UNPOOL(2, std::string_view, "str padding='valid'")
  OPSIN_UNPOOL(3, IntSpan, "int[3] padding=0")
  OPSIN_UNPOOL(3, std::string_view, "str padding='valid'")
#undef OPSIN_UNPOOL
}

}  // namespace opsin

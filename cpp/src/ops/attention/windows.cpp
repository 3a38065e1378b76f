// Windows and neighbourhoods of grids, and rotary positions: compositions around attention.
#include "parts.h"

#include <algorithm>
#include <limits>
#include <vector>

#include <opsin/ops/attention.h>
#include <opsin/ops/binary.h>
#include <opsin/ops/cat.h>
#include <opsin/ops/copy.h>
#include <opsin/ops/creation.h>
#include <opsin/ops/index.h>
#include <opsin/ops/view.h>

namespace opsin {

namespace {

/// One size per axis of a tensor with `others` more dimensions.
Dims per_axis(const Tensor& x, int64_t others, IntSpan sizes, const char* op, const char* what) {
  const int64_t axes = x.dim() - others;
  OPSIN_CHECK(ShapeError, axes >= 1 && axes <= 3, op, ": expected 1 to 3 spatial dimensions, got ",
              str(x.sizes()));
  OPSIN_CHECK(ShapeError, sizes.size() == 1 || static_cast<int64_t>(sizes.size()) == axes, op, ": expected ",
              what, " to be one integer or ", axes, ", got ", str(sizes));
  return sizes.size() > 1 ? Dims(sizes) : Dims(static_cast<size_t>(axes), sizes[0]);
}

/// How the positions of an axis are cut into blocks of queries, and which keys each block reads.
struct Axis {
  int64_t blocks, block, keys;
  Tensor query_index, key_index;  ///< [blocks * block] and [blocks * keys], int64
  Tensor seen;                    ///< [blocks, block, keys]
  Tensor offset;                  ///< [blocks, block, keys]: key - query + kernel - 1, 0 if not seen

  Axis(int64_t size, int64_t kernel, Device device) {
    // About as many positions as the window: more would read less twice but multiply more in vain.
    block = std::min(size, std::max<int64_t>(kernel, 4));
    blocks = (size + block - 1) / block;
    keys = std::min(size, block + kernel - 1);
    query_index = empty({blocks * block}, kInt64);
    key_index = empty({blocks * keys}, kInt64);
    seen = empty({blocks, block, keys}, kBool);
    offset = empty({blocks, block, keys}, kInt64);
    int64_t* queries = query_index.mutable_data<int64_t>();
    int64_t* read = key_index.mutable_data<int64_t>();
    bool* sees = seen.mutable_data<bool>();
    int64_t* away = offset.mutable_data<int64_t>();
    const auto first_of = [&](int64_t i) { return std::clamp<int64_t>(i - kernel / 2, 0, size - kernel); };
    for (int64_t b = 0; b < blocks; ++b) {
      const int64_t begin = std::min(first_of(b * block), size - keys);
      for (int64_t k = 0; k < keys; ++k) read[b * keys + k] = begin + k;
      for (int64_t q = 0; q < block; ++q) {
        const int64_t i = std::min(b * block + q, size - 1), first = first_of(i) - begin;
        queries[b * block + q] = i;
        for (int64_t k = 0; k < keys; ++k) {
          const bool near = k >= first && k < first + kernel;
          sees[(b * block + q) * keys + k] = near;
          away[(b * block + q) * keys + k] = near ? begin + k - i + kernel - 1 : 0;
        }
      }
    }
    query_index = to(query_index, device);
    key_index = to(key_index, device);
    seen = to(seen, device);
    offset = to(offset, device);
  }
};

/// [N, spatial..., heads, D] by blocks: [N, blocks, heads, positions of a block, D].
Tensor gather_blocks(const Tensor& x, const std::vector<Axis>& axes, bool queries) {
  Tensor y = x;
  for (size_t d = 0; d < axes.size(); ++d)
    y = index_select(y, static_cast<int64_t>(d) + 1, queries ? axes[d].query_index : axes[d].key_index);
  Dims sizes{x.sizes()[0]};
  int64_t blocks = 1, positions = 1;
  for (const Axis& axis : axes) {
    sizes.push_back(axis.blocks);
    sizes.push_back(queries ? axis.block : axis.keys);
    blocks *= axis.blocks;
    positions *= queries ? axis.block : axis.keys;
  }
  const auto last = static_cast<int64_t>(sizes.size());
  sizes.push_back(x.size(-2));
  sizes.push_back(x.size(-1));
  Dims order{0};
  for (size_t d = 0; d < axes.size(); ++d) order.push_back(2 * static_cast<int64_t>(d) + 1);
  order.push_back(last);
  for (size_t d = 0; d < axes.size(); ++d) order.push_back(2 * static_cast<int64_t>(d) + 2);
  order.push_back(last + 1);
  return reshape(permute(reshape(y, sizes), order),
                 Dims{x.sizes()[0], blocks, x.size(-2), positions, x.size(-1)});
}

/// What `join` makes of two [blocks, queries, keys], for each block, query and key of the one with each of
/// the other.
template <class Join>
Tensor crossed(const Tensor& one, const Tensor& other, Join join) {
  const Dims a = one.sizes(), b = other.sizes();
  const Tensor both =
      join(reshape(one, Dims{a[0], 1, a[1], 1, a[2], 1}), reshape(other, Dims{1, b[0], 1, b[1], 1, b[2]}));
  return reshape(both, Dims{a[0] * b[0], a[1] * b[1], a[2] * b[2]});
}

/// [blocks, 1, queries, keys] for all axes: which keys are seen, or with a bias what is added to them.
Tensor mask_of_blocks(const std::vector<Axis>& axes, const Dims& kernel, const Tensor& bias) {
  Tensor seen = axes[0].seen, offset = axes[0].offset;
  for (size_t d = 1; d < axes.size(); ++d) {
    seen = crossed(seen, axes[d].seen, [](const Tensor& a, const Tensor& b) { return mul(a, b); });
    if (!bias.defined()) continue;
    const int64_t width = 2 * kernel[d] - 1;
    offset = crossed(offset, axes[d].offset, [&](const Tensor& a, const Tensor& b) { return a * width + b; });
  }
  seen = unsqueeze(seen, 1);
  if (!bias.defined()) return seen;
  const Dims sizes = offset.sizes();
  const Tensor added = index_select(flatten(bias, 1, -1), 1, flatten(offset, 0, -1));
  const Tensor by_block =
      transpose(reshape(added, Dims{bias.sizes()[0], sizes[0], sizes[1], sizes[2]}), 0, 1);
  const double lowest = -std::numeric_limits<double>::infinity();
  return where(seen, by_block, full({}, lowest, bias.dtype(), bias.device()));
}

/// For neighbours that are beside each other.
Tensor attend_near(const Tensor& query, const Tensor& key, const Tensor& value, const Dims& kernel,
                   std::optional<double> scale, const Tensor& bias) {
  std::vector<Axis> axes;
  Dims whole{query.sizes()[0]};
  for (size_t d = 0; d < kernel.size(); ++d) {
    axes.emplace_back(query.sizes()[d + 1], kernel[d], query.device());
  }
  Tensor out = scaled_dot_product_attention(gather_blocks(query, axes, true), gather_blocks(key, axes, false),
                                            gather_blocks(value, axes, false),
                                            mask_of_blocks(axes, kernel, bias), 0, false, scale);
  // Back from [N, blocks, heads, positions, D], without the positions beyond the end of an axis.
  Dims order{0};
  for (const Axis& axis : axes) whole.push_back(axis.blocks);
  whole.push_back(query.size(-2));
  for (size_t d = 0; d < axes.size(); ++d) {
    whole.push_back(axes[d].block);
    order.push_back(static_cast<int64_t>(d) + 1);
    order.push_back(static_cast<int64_t>(axes.size() + d) + 2);
  }
  whole.push_back(value.size(-1));
  order.push_back(static_cast<int64_t>(axes.size()) + 1);
  order.push_back(static_cast<int64_t>(whole.size()) - 1);
  Dims joined{query.sizes()[0]};
  for (const Axis& axis : axes) joined.push_back(axis.blocks * axis.block);
  joined.push_back(query.size(-2));
  joined.push_back(value.size(-1));
  out = reshape(permute(reshape(out, whole), order), joined);
  for (size_t d = 0; d < axes.size(); ++d)
    out = narrow(out, static_cast<int64_t>(d) + 1, 0, query.sizes()[d + 1]);
  return out;
}

/// Every steps[d]-th position of an axis is a grid of its own, from `axis` on.
Tensor attend_apart(const Tensor& query, const Tensor& key, const Tensor& value, const Dims& kernel,
                    const Dims& steps, std::optional<double> scale, const Tensor& bias, size_t axis) {
  if (axis == kernel.size()) return attend_near(query, key, value, kernel, scale, bias);
  const int64_t step = steps[axis], dim = static_cast<int64_t>(axis) + 1, size = query.size(dim);
  if (step == 1) return attend_apart(query, key, value, kernel, steps, scale, bias, axis + 1);
  TensorList parts;
  const Tensor place = empty({size}, kInt64);
  int64_t* to_place = place.mutable_data<int64_t>();
  int64_t count = 0;
  for (int64_t first = 0; first < step; ++first) {
    const auto part = [&](const Tensor& x) { return slice(x, dim, first, size, step); };
    parts.push_back(attend_apart(part(query), part(key), part(value), kernel, steps, scale, bias, axis + 1));
    for (int64_t i = first; i < size; i += step) to_place[i] = count++;
  }
  return index_select(cat(parts, dim), dim, to(place, query.device()));
}

}  // namespace

Tensor window_partition(const Tensor& input, IntSpan window_size) {
  const char* op = "window_partition";
  const Dims window = per_axis(input, 2, window_size, op, "window_size");
  const size_t axes = window.size();
  Dims split{input.sizes()[0]}, order{0}, sizes{input.sizes()[0]};
  for (size_t d = 0; d < axes; ++d) {
    const int64_t size = input.sizes()[d + 1];
    OPSIN_CHECK(ShapeError, window[d] > 0 && size % window[d] == 0, op,
                ": expected every axis to be a multiple of its window ", str(window), ", got ",
                str(input.sizes()), " (pad it first)");
    split.push_back(size / window[d]);
    split.push_back(window[d]);
    sizes[0] *= size / window[d];
    order.push_back(2 * static_cast<int64_t>(d) + 1);
  }
  for (size_t d = 0; d < axes; ++d) {
    order.push_back(2 * static_cast<int64_t>(d) + 2);
    sizes.push_back(window[d]);
  }
  order.push_back(2 * static_cast<int64_t>(axes) + 1);
  split.push_back(input.size(-1));
  sizes.push_back(input.size(-1));
  return reshape(permute(reshape(input, split), order), sizes);
}

Tensor window_reverse(const Tensor& windows, IntSpan size) {
  const char* op = "window_reverse";
  const Dims whole = per_axis(windows, 2, size, op, "size");
  const size_t axes = whole.size();
  int64_t count = 1;
  for (size_t d = 0; d < axes; ++d) {
    const int64_t window = windows.sizes()[d + 1];
    OPSIN_CHECK(ShapeError, window > 0 && whole[d] % window == 0, op, ": expected size ", str(whole),
                " to be multiples of the windows, got ", str(windows.sizes()));
    count *= whole[d] / window;
  }
  OPSIN_CHECK(ShapeError, count > 0 && windows.sizes()[0] % count == 0, op, ": expected a multiple of ",
              count, " windows for size ", str(whole), ", got ", str(windows.sizes()));
  Dims split{windows.sizes()[0] / count}, order{0}, sizes{windows.sizes()[0] / count};
  for (size_t d = 0; d < axes; ++d) split.push_back(whole[d] / windows.sizes()[d + 1]);
  for (size_t d = 0; d < axes; ++d) {
    split.push_back(windows.sizes()[d + 1]);
    order.push_back(static_cast<int64_t>(d) + 1);
    order.push_back(static_cast<int64_t>(axes + d) + 1);
    sizes.push_back(whole[d]);
  }
  order.push_back(2 * static_cast<int64_t>(axes) + 1);
  split.push_back(windows.size(-1));
  sizes.push_back(windows.size(-1));
  return reshape(permute(reshape(windows, split), order), sizes);
}

Tensor neighborhood_attention(const Tensor& query, const Tensor& key, const Tensor& value,
                              IntSpan kernel_size, IntSpan dilation, std::optional<double> scale,
                              const Tensor& relative_position_bias) {
  const char* op = "neighborhood_attention";
  const Dims kernel = per_axis(query, 3, kernel_size, op, "kernel_size"),
             steps = dilation.empty() ? Dims(kernel.size(), 1) : per_axis(query, 3, dilation, op, "dilation");
  OPSIN_CHECK(ShapeError,
              query.sizes() == key.sizes() && key.dim() == value.dim() &&
                  std::equal(key.sizes().begin(), key.sizes().end() - 1, value.sizes().begin()),
              op, ": expected query, key and value [N, spatial..., heads, D] of one shape, got ",
              str(query.sizes()), ", ", str(key.sizes()), " and ", str(value.sizes()));
  for (size_t d = 0; d < kernel.size(); ++d) {
    OPSIN_CHECK(
        ShapeError,
        kernel[d] > 0 && kernel[d] % 2 == 1 && steps[d] > 0 && kernel[d] * steps[d] <= query.sizes()[d + 1],
        op, ": expected odd kernel_size, times dilation at most the size of its axis, got ", str(kernel),
        " and ", str(steps), " for ", str(query.sizes()));
  }
  if (relative_position_bias.defined()) {
    Dims wanted{query.size(-2)};
    for (const int64_t k : kernel) wanted.push_back(2 * k - 1);
    OPSIN_CHECK(ShapeError, relative_position_bias.sizes() == wanted, op,
                ": expected relative_position_bias [heads, 2 kernel_size - 1...] = ", str(wanted), ", got ",
                str(relative_position_bias.sizes()));
  }
  return attend_apart(query, key, value, kernel, steps, scale, relative_position_bias, 0);
}

Tensor rotary_embedding(const Tensor& input, const Tensor& cos, const Tensor& sin) {
  const char* op = "rotary_embedding";
  OPSIN_CHECK(ShapeError, input.dim() >= 2 && input.size(-1) % 2 == 0, op,
              ": expected input [..., L, D] with an even D, got ", str(input.sizes()));
  const int64_t half = input.size(-1) / 2;
  OPSIN_CHECK(ShapeError, cos.sizes() == sin.sizes() && cos.dim() >= 1 && cos.size(-1) == half, op,
              ": expected cos and sin [..., ", half, "] for input ", str(input.sizes()), ", got ",
              str(cos.sizes()), " and ", str(sin.sizes()));
  const Tensor c = to(cos, input.dtype()), s = to(sin, input.dtype());
  const Tensor x = narrow(input, -1, 0, half), y = narrow(input, -1, half, half);
  const Tensor turned[] = {x * c - y * s, y * c + x * s};
  return cat(turned, -1);
}

void register_windows(Registry& registry) {
  registry.add<&window_partition>(
      "ops.window_partition(Tensor input, int[1] window_size) -> Tensor",
      "Windows [N * windows, window_size..., C] of input [N, spatial..., C], in row-major order.");
  registry.add<&window_reverse>(
      "ops.window_reverse(Tensor windows, int[1] size) -> Tensor",
      "The input [N, size..., C] of which window_partition() made windows [N * windows, window_size..., C].");
  registry.add<&neighborhood_attention>(
      "ops.neighborhood_attention(Tensor query, Tensor key, Tensor value, int[1] kernel_size, *, "
      "int[1] dilation=1, float? scale=None, Tensor? relative_position_bias=None) -> Tensor",
      "Attention of each position of a grid [N, spatial..., heads, D] to the kernel_size nearest per axis, "
      "dilation apart; a bias [heads, 2 kernel_size - 1...] is added for the place of the key.");
  registry.add<&rotary_embedding>(
      "ops.rotary_embedding(Tensor input, Tensor cos, Tensor sin) -> Tensor",
      "Turns the pairs (x[i], x[i + D / 2]) of input [..., L, D] by angles with these cosines and sines.");
}

}  // namespace opsin

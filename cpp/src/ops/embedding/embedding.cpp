// Tables that are read by row.
#include "embedding_kernels.h"

#include <opsin/ops/binary.h>
#include <opsin/ops/copy.h>
#include <opsin/ops/creation.h>
#include <opsin/ops/embedding.h>
#include <opsin/ops/index.h>
#include <opsin/ops/view.h>

#include "core/call.h"
#include "core/registry.h"
#include "core/same_device.h"
#include "ops/index/rows.h"

namespace opsin {

constinit KernelSlot<void (*)(const ShortenParams&)> embedding_shorten("embedding");

namespace {

// y[n] = weight[rows[n]], so d weight[r] = sum of scale[n] dy[n] over the n with rows[n] == r; scale is 1 but
// for the padding row (0) and for scaling by frequency (1 / number of such n).
struct Embedding {
  static constexpr const char* kName = "embedding";
  struct Params {
    RowGeometry geometry;
    Dims weight_sizes, output_sizes;
    int64_t padding;  ///< -1 for none.
    bool by_frequency;
  };
  static Tensor forward(const Params& p, const Tensor& weight, const Tensor& rows) {
    return select_rows(weight, rows, p.geometry, p.output_sizes);
  }
  static void save(Saver& saver, const Params&, const Tensor&, const Tensor& rows, const Tensor&) {
    saver.save(0, rows);
  }
  static void backward(Backward& ctx, const Params& p) {
    const Tensor rows = ctx.saved(0);
    Tensor grad = ctx.grad();
    if (p.padding >= 0 || p.by_frequency) grad = mul(grad, to(scales(p, rows), grad.dtype()));
    ctx.set(0, put_rows_(zeros(p.weight_sizes, grad.dtype(), grad.device()), rows, grad, p.geometry,
                         /*accumulate=*/true));
  }

 private:
  static Tensor scales(const Params& p, const Tensor& rows) {
    const Device device = rows.device();
    Tensor share;
    if (p.by_frequency) {
      const Tensor flat = view(rows, Dims{-1});
      const Tensor counts = put_rows_(
          zeros(Dims{p.geometry.size}, kFloat64, device), flat, ones(flat.sizes(), kFloat64, device),
          {1, p.geometry.size, flat.numel(), 1, p.geometry.op}, /*accumulate=*/true);
      share = div(wrap_number(1.0), index_select(counts, 0, flat));
      share = view(share, rows.sizes());
    } else {
      share = ones(rows.sizes(), kFloat64, device);
    }
    return unsqueeze(masked_fill(share, eq(rows, wrap_number(p.padding)), wrap_number(0.0)), -1);
  }
};

/// Scales the rows of `weight` that are read and longer than `max_norm` down to it, as PyTorch does.
void shorten_rows(const Tensor& weight, const Tensor& rows, double max_norm, double p) {
  check_same_device("embedding", weight, rows);
  const Tensor values = weight.detach();
  const Tensor dense = contiguous(values);
  embedding_shorten.get(weight.device(),
                        weight.dtype())({dense.impl()->mutable_data(), weight.dtype(), rows.data<int64_t>(),
                                         rows.numel(), weight.sizes()[0], weight.sizes()[1], max_norm, p});
  if (dense.is_same(values)) {
    weight.bump_version();
  } else {
    copy_(values, dense);
  }
}

Tensor embedding_schema(const Tensor& input, const Tensor& weight, std::optional<int64_t> padding_idx,
                        std::optional<double> max_norm, double norm_type, bool scale_grad_by_freq,
                        bool sparse) {
  OPSIN_CHECK(ValueError, !sparse, "embedding: gradients are dense, got sparse=True (leave it False)");
  return embedding(input, weight, padding_idx, max_norm, norm_type, scale_grad_by_freq);
}

}  // namespace

Tensor embedding(const Tensor& input, const Tensor& weight, std::optional<int64_t> padding_idx,
                 std::optional<double> max_norm, double norm_type, bool scale_grad_by_freq) {
  OPSIN_CHECK(ShapeError, weight.dim() == 2, "embedding: 'weight' must be 2-D, got shape ",
              str(weight.sizes()));
  OPSIN_CHECK(TypeError, input.dtype() == kInt64 || input.dtype() == kInt32,
              "embedding: expected an input of int64 or int32 indices, got ", name(input.dtype()));
  const int64_t count = weight.sizes()[0];
  int64_t padding = -1;
  if (padding_idx) {
    OPSIN_CHECK(ValueError, *padding_idx >= -count && *padding_idx < count,
                "embedding: padding_idx must be within num_embeddings, got padding_idx=", *padding_idx,
                " for ", count, " rows");
    padding = *padding_idx < 0 ? *padding_idx + count : *padding_idx;
  }
  const Tensor rows =
      checked_indices(input, 0, count, /*allow_negative=*/false, "embedding", keeps_indices(weight));
  if (max_norm) shorten_rows(weight, rows, *max_norm, norm_type);
  Dims sizes = input.sizes();
  sizes.push_back(weight.sizes()[1]);
  const RowGeometry geometry{1, count, rows.numel(), weight.sizes()[1], "embedding"};
  return call<Embedding>({geometry, weight.sizes(), std::move(sizes), padding, scale_grad_by_freq}, weight,
                         rows);
}

void register_embedding(Registry& registry) {
  register_embedding_cpu();
  registry.add<&embedding_schema>(
      "nn.functional.embedding(Tensor input, Tensor weight, int? padding_idx=None, float? max_norm=None, "
      "float norm_type=2.0, bool scale_grad_by_freq=False, bool sparse=False) -> Tensor",
      "A row of `weight` [V, D] for each index: [...] -> [..., D].");
}

}  // namespace opsin

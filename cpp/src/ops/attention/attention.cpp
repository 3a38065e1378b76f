// Scaled dot-product attention.
#include "attention_kernels.h"
#include "ops/random/random_kernels.h"
#include "parts.h"

#include <cmath>

#include <opsin/ops/attention.h>
#include <opsin/ops/binary.h>
#include <opsin/ops/compare.h>
#include <opsin/ops/copy.h>
#include <opsin/ops/creation.h>
#include <opsin/ops/index.h>
#include <opsin/ops/matmul.h>
#include <opsin/ops/rearrange.h>
#include <opsin/ops/reduce.h>
#include <opsin/ops/softmax.h>
#include <opsin/ops/unary.h>
#include <opsin/ops/view.h>

#include "core/call.h"
#include "core/registry.h"
#include "ops/random/random.h"

namespace opsin {

constinit KernelSlot<void (*)(const AttentionParams&)> attention_forward{"scaled_dot_product_attention"};
constinit KernelSlot<void (*)(const AttentionBackwardParams&)> attention_backward{
    "scaled_dot_product_attention_backward"};

namespace {

constexpr const char* kOp = "scaled_dot_product_attention";

/// A new [batch, heads, rows, columns]. Where the heads of `model` lie within its rows, as they do in the
/// product of a linear layer, they do so here.
Tensor empty_heads(const Tensor& model, int64_t heads, int64_t rows, int64_t columns, DType dtype) {
  const int64_t batch = model.sizes()[0];
  if (model.strides()[1] < model.strides()[2])
    return transpose(empty({batch, rows, heads, columns}, dtype, model.device()), 1, 2);
  return empty({batch, heads, rows, columns}, dtype, model.device());
}

AttentionMatrix matrix_of(const Tensor& x) {
  const auto stride = [&](size_t d) { return x.sizes()[d] == 1 ? 0 : x.strides()[d]; };
  return {x.impl()->data(), stride(0), stride(1), stride(2), stride(3)};
}
AttentionMatrix writable_matrix_of(const Tensor& x) {
  if (!x.defined()) return {};
  const Dims& s = x.strides();
  return {x.impl()->mutable_data(), s[0], s[1], s[2], s[3]};
}

/// Query [B, Hq, L, E], key [B, H, S, E], value [B, H, S, Ev] and a mask whose sizes are each 1 or that of
/// [B / inner, inner, Hq, L, S]: with a mask per window, inner counts the windows of an image.
struct Attention {
  static constexpr const char* kName = kOp;
  struct Params {
    double scale;
    int64_t inner;
    bool causal;
    uint32_t least;
    double kept_scale;
    PhiloxSeed random;
  };

  static int64_t flops(const Params&, const Tensor& query, const Tensor& key, const Tensor& value,
                       const Tensor&) {
    const Dims& q = query.sizes();
    return 2 * q[0] * q[1] * q[2] * key.sizes()[2] * (q[3] + value.sizes()[3]);
  }

  static std::array<Tensor, 2> forward(const Params& p, const Tensor& query, const Tensor& key,
                                       const Tensor& value, const Tensor& mask) {
    const Dims& q = query.sizes();
    const Tensor out = empty_heads(query, q[1], q[2], value.sizes()[3], query.dtype());
    const Tensor log_sum = empty({q[0], q[1], q[2]}, compute_type(query.dtype()), query.device());
    const auto kernel = attention_forward.get(query.device(), query.dtype());
    if (log_sum.numel() == 0) return {out, log_sum};
    if (key.sizes()[2] == 0) {
      zero_(out);
      return {out, log_sum};
    }
    AttentionParams params = params_of(p, query, key, value, mask);
    params.out = writable_matrix_of(out);
    params.log_sum = log_sum.impl()->mutable_data();
    kernel(params);
    return {out, log_sum};
  }

  static void save(Saver& saver, const Params&, const Tensor& query, const Tensor& key, const Tensor& value,
                   const Tensor& mask, const std::array<Tensor, 2>& y) {
    saver.save(0, query);
    saver.save(1, key);
    saver.save(2, value);
    if (mask.defined()) saver.save(3, mask);
    saver.save_output(4, y[0]);
    saver.save_output(5, y[1]);
  }

  // With scores s = scale q k^T + mask, weights w = softmax(s), the factors d of dropout and out = (w d) v:
  //   dv = (w d)^T g, dw = (g v^T) d, ds = w (dw - sum(dw w)), dq = scale ds k, dk = scale ds^T q, dmask = ds
  // where sum(dw w) over keys is sum(g out) over columns.
  static void backward(Backward& ctx, const Params& p) {
    if (ctx.create_graph()) return composed(ctx, p);
    const Tensor query = ctx.saved(0), key = ctx.saved(1), value = ctx.saved(2), mask = ctx.saved(3);
    const Tensor out = ctx.saved(4), log_sum = ctx.saved(5);
    const Tensor grad = to(ctx.grad(), query.dtype());
    const DType compute = compute_type(query.dtype());
    const auto like = [&](size_t i, const Tensor& x) {
      return ctx.needs(i) ? empty_heads(x, x.sizes()[1], x.sizes()[2], x.sizes()[3], compute) : Tensor();
    };
    const Tensor grads[] = {like(0, query), like(1, key), like(2, value),
                            ctx.needs(3) ? zeros(mask.sizes(), compute, mask.device()) : Tensor()};
    if (log_sum.numel() == 0 || key.sizes()[2] == 0) {
      for (const Tensor& g : grads)
        if (g.defined()) zero_(g);
    } else {
      AttentionBackwardParams params;
      static_cast<AttentionParams&>(params) = params_of(p, query, key, value, mask);
      const Tensor delta = contiguous(sum(to(grad, compute) * to(out, compute), Dims{3}));
      params.grad_out = matrix_of(grad);
      params.log_sum = log_sum.impl()->mutable_data();
      params.delta = delta.impl()->data();
      params.grad_query = writable_matrix_of(grads[0]);
      params.grad_key = writable_matrix_of(grads[1]);
      params.grad_value = writable_matrix_of(grads[2]);
      if (grads[3].defined()) {
        params.grad_mask = grads[3].impl()->mutable_data();
        std::copy(mask.sizes().begin(), mask.sizes().end(), params.mask_sizes);
      }
      attention_backward.get(query.device(), query.dtype())(params);
    }
    for (size_t i = 0; i < 4; ++i)
      if (grads[i].defined()) ctx.set(i, to(grads[i], query.dtype()));
  }

 private:
  static AttentionParams params_of(const Params& p, const Tensor& query, const Tensor& key,
                                   const Tensor& value, const Tensor& mask) {
    AttentionParams params;
    params.batch = query.sizes()[0];
    params.heads = query.sizes()[1];
    params.kv_heads = key.sizes()[1];
    params.queries = query.sizes()[2];
    params.keys = key.sizes()[2];
    params.depth = query.sizes()[3];
    params.value_depth = value.sizes()[3];
    params.query = matrix_of(query);
    params.key = matrix_of(key);
    params.value = matrix_of(value);
    if (mask.defined()) {
      const auto stride = [&](size_t d) { return mask.sizes()[d] == 1 ? 0 : mask.strides()[d]; };
      params.mask = {mask.impl()->data(), stride(0), stride(2), stride(3), stride(4)};
      params.mask_inner = p.inner;
      params.mask_inner_stride = stride(1);
      params.mask_kind = mask.dtype() == kBool ? AttentionMask::kSeen : AttentionMask::kAdded;
    }
    params.scale = p.scale;
    params.causal = p.causal;
    params.least = p.least;
    params.kept_scale = p.kept_scale;
    params.random = p.random;
    params.dtype = query.dtype();
    return params;
  }

  /// The factors of dropout for [B, H, L, S], by the numbers that the kernels draw.
  static Tensor kept(const Params& p, const Dims& sizes, DType dtype, Device device) {
    const int64_t wide = (sizes[2] + 3) / 4 * 4;
    const Tensor from = ones(Dims{sizes[0], sizes[1], sizes[3], wide}, dtype, device);
    const Tensor factors = empty(from.sizes(), dtype, device);
    if (from.numel() > 0) {
      dropout_forward.get(device, dtype)({from.impl()->data(), factors.impl()->mutable_data(), from.numel(),
                                          dtype, p.random, p.least, p.kept_scale});
    }
    return transpose(narrow(factors, 3, 0, sizes[2]), 2, 3);
  }

  /// The gradients in differentiable functions, over [B, H, G, L, S] for G heads of the query per head of key
  /// and value.
  static void composed(Backward& ctx, const Params& p) {
    const Tensor query = ctx.saved(0), key = ctx.saved(1), value = ctx.saved(2), mask = ctx.saved(3);
    const DType dtype = compute_type(query.dtype());
    const Scalar scale(p.scale);
    const int64_t batch = query.sizes()[0], heads = query.sizes()[1], queries = query.sizes()[2];
    const int64_t kv_heads = key.sizes()[1], keys = key.sizes()[2],
                  group = kv_heads == 0 ? 1 : heads / kv_heads;
    // A mask of several leading dimensions is repeated here, where the scores exist as a whole anyway.
    const auto split = [&](const Tensor& x) {
      const Dims& m = x.sizes();
      Tensor y = x;
      if (m[0] * m[1] != 1) y = expand(x, Dims{batch / p.inner, p.inner, m[2], m[3], m[4]});
      y = flatten(y, 0, 1);
      return m[2] == 1 ? unsqueeze(y, 1) : unflatten(y, 1, Dims{kv_heads, group});
    };
    const Tensor q = unflatten(to(query, dtype), 1, Dims{kv_heads, group}),
                 g = unflatten(to(ctx.grad(), dtype), 1, Dims{kv_heads, group}),
                 k = unsqueeze(to(key, dtype), 2), v = unsqueeze(to(value, dtype), 2);
    Tensor scores = matmul(q, transpose(k, -2, -1)) * scale;
    const Tensor lowest = wrap_number(-INFINITY);
    if (mask.defined()) {
      scores = mask.dtype() == kBool ? masked_fill(scores, logical_not(split(mask)), lowest)
                                     : scores + split(to(mask, dtype));
    }
    if (p.causal) {
      const Tensor all = ones(Dims{queries, keys}, kUInt8, query.device());
      scores = masked_fill(scores, to(triu(all, 1), kBool), lowest);
    }
    if (keys > 0) {
      const Tensor nothing = eq(amax(scores.detach(), Dims{-1}, true), lowest);
      scores =
          masked_fill(softmax(masked_fill(scores, nothing, wrap_number(0.0)), -1), nothing, wrap_number(0.0));
    }
    const Tensor& weights = scores;
    const auto drop =
        [&, factors = p.least ? unflatten(kept(p, Dims{batch, heads, queries, keys}, dtype, query.device()),
                                          1, Dims{kv_heads, group})
                              : Tensor()](const Tensor& x) { return p.least ? x * factors : x; };
    const auto rows = [&](const Tensor& x, const Tensor& like) { return to(flatten(x, 1, 2), like.dtype()); };
    const auto over_group = [&](const Tensor& x, const Tensor& like) {
      return to(sum(x, Dims{2}), like.dtype());
    };
    if (ctx.needs(2)) ctx.set(2, over_group(matmul(transpose(drop(weights), -2, -1), g), value));
    if (!ctx.needs(0) && !ctx.needs(1) && !ctx.needs(3)) return;
    const Tensor grad_weights = drop(matmul(g, transpose(v, -2, -1)));
    const Tensor slope = weights * (grad_weights - sum(grad_weights * weights, Dims{-1}, true));
    if (ctx.needs(0)) ctx.set(0, rows(matmul(slope, k) * scale, query));
    if (ctx.needs(1)) ctx.set(1, over_group(matmul(transpose(slope, -2, -1), q) * scale, key));
    if (ctx.needs(3)) {
      const Tensor all = unflatten(flatten(slope, 1, 2), 0, Dims{batch / p.inner, p.inner});
      ctx.set(3, to(sum_to_size(all, mask.sizes()), mask.dtype()));
    }
  }
};

bool is_broadcastable(int64_t from, int64_t to) { return from == to || from == 1; }

/// x [..., H, rows, columns] as [batch, heads, rows, columns].
Tensor flat_heads(const Tensor& x, const Dims& batch, int64_t heads) {
  Dims sizes = batch;
  sizes.push_back(heads);
  sizes.push_back(x.size(-2));
  sizes.push_back(x.size(-1));
  const Tensor whole = sizes == x.sizes() ? x : expand(x, sizes);
  if (whole.dim() == 4) return whole;
  return reshape(whole, Dims{count_elements(batch), heads, x.size(-2), x.size(-1)});
}

Tensor flat_mask(const Tensor& mask, const Tensor& query, const Dims& batch, int64_t heads, int64_t queries,
                 int64_t keys) {
  Dims scores = batch;
  for (const int64_t size : {heads, queries, keys}) scores.push_back(size);
  bool fits = mask.dim() <= static_cast<int64_t>(scores.size());
  for (int64_t d = 1; fits && d <= mask.dim(); ++d) {
    fits = is_broadcastable(mask.size(-d), scores[scores.size() - static_cast<size_t>(d)]);
  }
  OPSIN_CHECK(ShapeError, fits, kOp, ": expected attn_mask to broadcast to ", str(scores), ", got ",
              str(mask.sizes()));
  OPSIN_CHECK(Error, mask.dtype() == kBool || is_floating_point(mask.dtype()), kOp,
              ": expected attn_mask of bool or a floating-point dtype, got ", name(mask.dtype()),
              " (convert with to())");
  Tensor x = mask.dtype() == kBool ? mask : to(mask, query.dtype());
  while (x.dim() < static_cast<int64_t>(scores.size())) x = unsqueeze(x, 0);
  if (batch.empty()) x = unsqueeze(x, 0);
  if (batch.size() <= 1) return unsqueeze(x, 1);
  // All leading dimensions but the first as one, if they repeat all or none.
  const Dims own(x.sizes().span().subspan(1, batch.size() - 1)), others(batch.span().subspan(1));
  if (count_elements(own) != 1 && !(own == others)) {
    Dims wide = scores;
    wide[0] = x.size(0);
    for (size_t d = batch.size(); d < wide.size(); ++d) wide[d] = x.sizes()[d];
    x = expand(x, wide);
  }
  const int64_t inner = count_elements(own) == 1 ? 1 : count_elements(others);
  return reshape(x, Dims{x.size(0), inner, x.size(-3), x.size(-2), x.size(-1)});
}

}  // namespace

Tensor scaled_dot_product_attention(const Tensor& query, const Tensor& key, const Tensor& value,
                                    const Tensor& attn_mask, double dropout_p, bool is_causal,
                                    std::optional<double> scale, bool enable_gqa) {
  if (autocast::is_active()) {
    return autocast::call<autocast::kLower>(scaled_dot_product_attention, query, key, value, attn_mask,
                                            dropout_p, is_causal, scale, enable_gqa);
  }
  const auto shapes = [&] {
    return str(query.sizes()) + ", " + str(key.sizes()) + " and " + str(value.sizes());
  };
  OPSIN_CHECK(
      Error,
      is_floating_point(query.dtype()) && query.dtype() == key.dtype() && query.dtype() == value.dtype(), kOp,
      ": expected query, key and value of one floating-point dtype, got ", name(query.dtype()), ", ",
      name(key.dtype()), " and ", name(value.dtype()), " (convert with to())");
  OPSIN_CHECK(ShapeError, query.dim() >= 2 && key.dim() >= 2 && value.dim() >= 2, kOp,
              ": expected query [..., L, E], key [..., S, E] and value [..., S, Ev], got ", shapes());
  OPSIN_CHECK(ShapeError, query.size(-1) == key.size(-1), kOp,
              ": expected query and key of the same last size, got ", shapes());
  OPSIN_CHECK(ShapeError, key.size(-2) == value.size(-2), kOp, ": expected as many keys as values, got ",
              shapes());
  OPSIN_CHECK(Error, !is_causal || !attn_mask.defined(), kOp,
              ": expected no attn_mask with is_causal=True, got one of ",
              attn_mask.defined() ? str(attn_mask.sizes()) : "", " (join both in the mask)");
  OPSIN_CHECK(ValueError, dropout_p >= 0 && dropout_p <= 1, kOp,
              ": dropout_p has to be between 0 and 1, but got ", dropout_p);
  const auto heads_of = [](const Tensor& x) { return x.dim() < 3 ? 1 : x.size(-3); };
  const auto batch_of = [](const Tensor& x) {
    return Dims(x.sizes().span().first(x.dim() < 3 ? 0 : x.sizes().size() - 3));
  };
  int64_t heads = heads_of(query), kv_heads = std::max(heads_of(key), heads_of(value));
  const int64_t least_heads = std::min(heads_of(key), heads_of(value));
  if (enable_gqa) {
    OPSIN_CHECK(ShapeError, query.dim() >= 3 && key.dim() >= 3 && value.dim() >= 3, kOp,
                ": enable_gqa expects heads in the third dimension from the end, got ", shapes());
    OPSIN_CHECK(
        ShapeError, least_heads == kv_heads && (kv_heads == 0 ? heads == 0 : heads % kv_heads == 0), kOp,
        ": enable_gqa expects as many heads of key as of value, and a multiple of them of query, got ",
        shapes());
  } else {
    const int64_t all = heads == 1 ? kv_heads : heads;
    OPSIN_CHECK(ShapeError,
                is_broadcastable(heads, all) && is_broadcastable(heads_of(key), all) &&
                    is_broadcastable(heads_of(value), all),
                kOp, ": expected leading dimensions that broadcast, got ", shapes(),
                " (enable_gqa shares heads of key and value)");
    heads = all;
    // One head for all needs no copies.
    if (kv_heads != 1) kv_heads = all;
  }
  const Dims batch =
      broadcast_shapes(broadcast_shapes(batch_of(query), batch_of(key), kOp), batch_of(value), kOp);
  Tensor mask = attn_mask;
  if (mask.defined()) mask = flat_mask(mask, query, batch, heads, query.size(-2), key.size(-2));

  Attention::Params p{
      scale.value_or(1 / std::sqrt(static_cast<double>(std::max<int64_t>(query.size(-1), 1)))),
      batch.size() > 1 ? std::max<int64_t>(count_elements(batch.span().subspan(1)), 1) : 1,
      is_causal,
      0,
      1,
      {}};
  if (dropout_p > 0) {
    const int64_t blocks = count_elements(batch) * heads * key.size(-2) * ((query.size(-2) + 3) / 4);
    p.random = reserve_philox(generator_for(query.device(), nullptr), static_cast<uint64_t>(blocks));
    p.least = static_cast<uint32_t>(std::ceil(static_cast<float>(dropout_p) * 0x1p24f));
    p.kept_scale = dropout_p == 1 ? 0 : 1 / (1 - dropout_p);
  }
  const Tensor out = call<Attention>(p, flat_heads(query, batch, heads), flat_heads(key, batch, kv_heads),
                                     flat_heads(value, batch, kv_heads), mask)[0];
  if (query.dim() == 4 && batch.size() == 1) return out;
  const bool headless = query.dim() < 3 && key.dim() < 3 && value.dim() < 3;
  Dims sizes = batch;
  if (!headless) sizes.push_back(heads);
  sizes.push_back(query.size(-2));
  sizes.push_back(value.size(-1));
  return reshape(out, sizes);
}

void register_attention(Registry& registry) {
  register_attention_cpu();
  registry.add<&scaled_dot_product_attention>(
      "nn.functional.scaled_dot_product_attention(Tensor query, Tensor key, Tensor value, Tensor? "
      "attn_mask=None, float dropout_p=0.0, bool is_causal=False, float? scale=None, bool enable_gqa=False) "
      "-> Tensor",
      "softmax(scale query key^T + attn_mask) value for query [..., H, L, E], key [..., H, S, E] and value "
      "[..., H, S, Ev], without the L x S matrix; a bool mask says where a query may look.");
  register_windows(registry);
}

}  // namespace opsin

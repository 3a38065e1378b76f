// Losses over classes.
#include "cross_entropy_kernels.h"
#include "parts.h"
#include "reduction.h"

#include <opsin/ops/binary.h>
#include <opsin/ops/copy.h>
#include <opsin/ops/creation.h>
#include <opsin/ops/loss.h>
#include <opsin/ops/reduce.h>
#include <opsin/ops/softmax.h>
#include <opsin/ops/unary.h>
#include <opsin/ops/view.h>

#include "../reduce/along.h"
#include "core/call.h"
#include "core/dispatch.h"
#include "core/same_device.h"

namespace opsin {

constinit KernelSlot<void (*)(const LabelParams&)> class_labels{"class_labels"};
constinit KernelSlot<void (*)(const CrossEntropyParams&)> cross_entropy_forward{"cross_entropy"};
constinit KernelSlot<void (*)(const CrossEntropyParams&)> cross_entropy_backward{"cross_entropy_backward"};

namespace {

int64_t class_dim(const Tensor& input) { return input.dim() == 1 ? 0 : 1; }

/// Shapes of scores, classes and weights.
void check_classes(const Tensor& input, const Tensor& target, const Tensor& weight, const char* op) {
  OPSIN_CHECK(ShapeError, input.dim() >= 1, op, ": expected input [N, C], [N, C, spatial...] or [C], got ",
              str(input.sizes()));
  OPSIN_CHECK(Error, target.dtype() == kInt64 || target.dtype() == kInt32 || target.dtype() == kUInt8, op,
              ": expected int64 classes or floating-point probabilities as target, got ",
              name(target.dtype()));
  const int64_t dim = class_dim(input), classes = input.size(dim);
  Dims expected = input.sizes();
  expected.erase(static_cast<size_t>(dim));
  OPSIN_CHECK(ShapeError, target.sizes() == expected, op, ": expected target ", str(expected), " for input ",
              str(input.sizes()), ", got ", str(target.sizes()));
  OPSIN_CHECK(ShapeError, !weight.defined() || weight.sizes() == Dims{classes}, op,
              ": weight tensor should be defined either for all ", classes, " classes or no classes, got ",
              weight.defined() ? str(weight.sizes()) : "");
  for (const Tensor& t : {target, weight}) check_same_device(op, input, t);
}

/// Classes that may be used as indices, and the weight of each position: 0 where the class is ignored.
struct Labels {
  Tensor index, weight;
};
Labels labels_of(const Tensor& target, const Tensor& weight, int64_t ignore_index, int64_t classes,
                 DType dtype, const char* op) {
  if (!is_floating_point(dtype)) detail::raise_unsupported(op, dtype);
  const Tensor t = contiguous(to(target.detach(), kInt64));
  const Tensor class_weight = weight.defined() ? contiguous(to(weight.detach(), dtype)) : Tensor();
  const Labels labels{empty(t.sizes(), kInt64, t.device()), empty(t.sizes(), dtype, t.device())};
  if (t.numel() == 0) return labels;
  OPSIN_CHECK(IndexError, classes > 0, op, ": Target of ", t.numel(),
              " positions is out of bounds for 0 classes (give scores of at least one class)");
  class_labels.get(t.device(),
                   dtype)({t.data<int64_t>(), class_weight.defined() ? class_weight.impl()->data() : nullptr,
                           labels.index.mutable_data<int64_t>(), labels.weight.impl()->mutable_data(), dtype,
                           t.numel(), classes, ignore_index, t.sizes(), op});
  return labels;
}

/// Scores as the kernels see them, the rest left out.
CrossEntropyParams positions_of(const Tensor& x, const Tensor& index) {
  CrossEntropyParams p{};
  p.x = x.impl()->physical_data();
  p.target = index.data<int64_t>();
  p.outer = p.inner = 1;
  const int64_t dim = class_dim(x);
  p.classes = x.size(dim);
  for (int64_t d = 0; d < x.dim(); ++d) (d < dim ? p.outer : p.inner) *= d == dim ? 1 : x.size(d);
  if (x.impl()->is_hidden()) {
    p.outer *= p.inner;
    p.inner = 1;
  }
  p.dtype = x.dtype();
  return p;
}

/// Loss per position: l = w (log sum exp(x) - x_t). dx_c = dl w (softmax(x)_c - [c = t]).
struct CrossEntropy {
  static constexpr const char* kName = "cross_entropy";
  struct Params {};

  static std::array<Tensor, 2> forward(const Params&, const Tensor& input, const Tensor& index,
                                       const Tensor& weight) {
    const Tensor x = contiguous(input);
    const DType compute = compute_type(x.dtype());
    const Tensor loss = empty(index.sizes(), compute, x.device());
    const Tensor log_sum = empty(index.sizes(), compute, x.device());
    const auto kernel = cross_entropy_forward.get(x.device(), x.dtype());
    if (x.numel() == 0) return {loss, log_sum};
    CrossEntropyParams p = positions_of(x, index);
    p.scale = weight.impl()->data();
    p.log_sum = log_sum.impl()->mutable_data();
    p.loss = loss.impl()->mutable_data();
    kernel(p);
    return {loss, log_sum};
  }
  static void save(Saver& saver, const Params&, const Tensor& x, const Tensor& index, const Tensor& weight,
                   const std::array<Tensor, 2>& y) {
    saver.save(0, x);
    saver.save(1, index);
    saver.save(2, weight);
    saver.save_output(3, y[1]);
  }
  static void backward(Backward& ctx, const Params&) {
    const Tensor input = ctx.saved(0), index = ctx.saved(1);
    const Tensor weight = ctx.saved(2);
    // Where everything is ignored the mean divides by 0, and 0 * inf would be NaN.
    const Tensor scale = where(ne(weight, wrap_number(0.0)), mul(ctx.grad(), weight), wrap_number(0.0));
    if (ctx.create_graph()) {
      const int64_t dim = class_dim(input);
      const Tensor at = unsqueeze(index, dim),
                   one = ones(at.sizes(), compute_type(input.dtype()), at.device());
      const Tensor own = put_along(one, dim, at, input.size(dim));
      ctx.set(0, (softmax(input, dim, compute_type(input.dtype())) - own) * unsqueeze(scale, dim));
      return;
    }
    const Tensor x = contiguous(input), s = contiguous(scale), log_sum = ctx.saved(3);
    const Tensor grad_x = x.impl()->is_hidden() ? empty_channels_last(x.sizes(), x.dtype(), x.device())
                                                : empty(x.sizes(), x.dtype(), x.device());
    const auto kernel = cross_entropy_backward.get(x.device(), x.dtype());
    if (x.numel() > 0) {
      CrossEntropyParams p = positions_of(x, index);
      p.scale = s.impl()->data();
      p.log_sum = log_sum.impl()->mutable_data();
      p.grad_x = grad_x.impl()->mutable_physical_data();
      kernel(p);
    }
    ctx.set(0, grad_x);
  }
};

/// "mean" of losses that were weighted: over the total weight.
Tensor reduce_weighted(const Tensor& loss, const Tensor& weight, Reduction reduction) {
  if (reduction == Reduction::kMean) return div(sum(loss), sum(weight));
  return reduction == Reduction::kSum ? sum(loss) : loss;
}

/// -log p of the right class, weighted, per position.
Tensor picked(const Tensor& log_p, const Labels& labels) {
  const int64_t dim = class_dim(log_p);
  const Tensor own = squeeze(take_along(log_p, dim, unsqueeze(labels.index, dim)), Dims{dim});
  // 0 * inf of an ignored position would be NaN.
  return where(ne(labels.weight, wrap_number(0.0)), neg(mul(own, labels.weight)), wrap_number(0.0));
}

/// The weights of classes in the shape of scores `[1, C, 1...]`.
Tensor class_weights(const Tensor& weight, const Tensor& input) {
  Dims sizes(input.sizes().size(), 1);
  sizes[static_cast<size_t>(class_dim(input))] = -1;
  return reshape(weight, sizes);
}

Tensor smoothed(const Tensor& input, const Tensor& target, const Tensor& weight, int64_t ignore_index,
                Reduction reduction, double smoothing) {
  const int64_t dim = class_dim(input);
  const Tensor log_p = log_softmax(input, dim, compute_type(input.dtype()));
  const Labels labels =
      labels_of(target, weight, ignore_index, input.size(dim), log_p.dtype(), "cross_entropy");
  const Tensor weighted =
      weight.defined() ? mul(log_p, to(class_weights(weight, input), log_p.dtype())) : log_p;
  const Tensor counts = ne(target.detach(), wrap_number(ignore_index));
  const Tensor even = where(counts, neg(sum(weighted, Dims{dim})), wrap_number(0.0));
  const Tensor loss = picked(log_p, labels) * Scalar(1 - smoothing) +
                      even * Scalar(smoothing / static_cast<double>(input.size(dim)));
  return to(reduce_weighted(loss, labels.weight, reduction), input.dtype());
}

Tensor with_probabilities(const Tensor& input, const Tensor& target, const Tensor& weight,
                          Reduction reduction, double smoothing) {
  OPSIN_CHECK(ShapeError, input.sizes() == target.sizes(),
              "cross_entropy: expected probabilities of the shape of input ", str(input.sizes()), ", got ",
              str(target.sizes()));
  const int64_t dim = class_dim(input), classes = input.size(dim);
  OPSIN_CHECK(ShapeError, !weight.defined() || weight.sizes() == Dims{classes},
              "cross_entropy: weight tensor should be defined either for all ", classes,
              " classes or no classes, got ", weight.defined() ? str(weight.sizes()) : "");
  const DType compute = compute_type(input.dtype());
  Tensor p = to(target, compute);
  if (smoothing > 0) p = p * Scalar(1 - smoothing) + wrap_number(smoothing / static_cast<double>(classes));
  Tensor terms = mul(log_softmax(input, dim, compute), p);
  if (weight.defined()) terms = mul(terms, to(class_weights(weight, input), compute));
  Tensor loss = neg(sum(terms, Dims{dim}));
  const auto count = static_cast<double>(loss.numel());
  if (reduction != Reduction::kNone) loss = sum(loss);
  if (reduction == Reduction::kMean) loss = div(loss, wrap_number(count));
  return to(loss, input.dtype());
}

Tensor cross_entropy_call(const Tensor& input, const Tensor& target, const Tensor& weight,
                          std::optional<bool> size_average, int64_t ignore_index, std::optional<bool> reduce,
                          std::string_view reduction, double label_smoothing) {
  return cross_entropy(input, target, weight, ignore_index, legacy_reduction(size_average, reduce, reduction),
                       label_smoothing);
}
Tensor nll_loss_call(const Tensor& input, const Tensor& target, const Tensor& weight,
                     std::optional<bool> size_average, int64_t ignore_index, std::optional<bool> reduce,
                     std::string_view reduction) {
  return nll_loss(input, target, weight, ignore_index, legacy_reduction(size_average, reduce, reduction));
}

}  // namespace

Tensor cross_entropy(const Tensor& input, const Tensor& target, const Tensor& weight, int64_t ignore_index,
                     std::string_view reduction, double label_smoothing) {
  if (autocast::is_active())
    return autocast::call<autocast::kFull>(cross_entropy, input, target, weight, ignore_index, reduction,
                                           label_smoothing);
  const Reduction way = parse_reduction(reduction, "cross_entropy");
  OPSIN_CHECK(Error, label_smoothing >= 0 && label_smoothing <= 1,
              "cross_entropy: label_smoothing must be between 0.0 and 1.0. Got: ", label_smoothing);
  OPSIN_CHECK(ShapeError, input.dim() >= 1,
              "cross_entropy: expected input [N, C], [N, C, spatial...] or [C], got ", str(input.sizes()));
  if (is_floating_point(target.dtype()))
    return with_probabilities(input, target, weight, way, label_smoothing);
  check_classes(input, target, weight, "cross_entropy");
  if (label_smoothing > 0) return smoothed(input, target, weight, ignore_index, way, label_smoothing);
  const Labels labels = labels_of(target, weight, ignore_index, input.size(class_dim(input)),
                                  compute_type(input.dtype()), "cross_entropy");
  const Tensor loss = call<CrossEntropy>({}, input, labels.index, labels.weight)[0];
  return to(reduce_weighted(loss, labels.weight, way), input.dtype());
}

Tensor nll_loss(const Tensor& input, const Tensor& target, const Tensor& weight, int64_t ignore_index,
                std::string_view reduction) {
  if (autocast::is_active())
    return autocast::call<autocast::kFull>(nll_loss, input, target, weight, ignore_index, reduction);
  const Reduction way = parse_reduction(reduction, "nll_loss");
  check_classes(input, target, weight, "nll_loss");
  const DType compute = compute_type(input.dtype());
  const Labels labels =
      labels_of(target, weight, ignore_index, input.size(class_dim(input)), compute, "nll_loss");
  return to(reduce_weighted(picked(to(input, compute), labels), labels.weight, way), input.dtype());
}

void register_cross_entropy(Registry& registry) {
  register_cross_entropy_cpu();
  registry.add<&cross_entropy_call>(
      "nn.functional.cross_entropy(Tensor input, Tensor target, Tensor? weight=None, bool? "
      "size_average=None, "
      "int ignore_index=-100, bool? reduce=None, str reduction='mean', float label_smoothing=0.0) -> Tensor",
      "Minus the log-likelihood of the right class after a softmax over the classes of scores [N, C, "
      "spatial...]; "
      "`target` holds classes [N, spatial...] or probabilities [N, C, spatial...].");
  registry.add<&nll_loss_call>(
      "nn.functional.nll_loss(Tensor input, Tensor target, Tensor? weight=None, bool? size_average=None, "
      "int ignore_index=-100, bool? reduce=None, str reduction='mean') -> Tensor",
      "Minus the log-probability [N, C, spatial...] of the right class [N, spatial...].");
}

}  // namespace opsin

// Optimizer steps: checks, and lists of tensors sorted by device and dtype.
#include "optim_kernels.h"

#include <cmath>

#include <opsin/autograd.h>
#include <opsin/ops/binary.h>
#include <opsin/ops/copy.h>
#include <opsin/ops/creation.h>
#include <opsin/optim.h>

#include "core/profiler.h"
#include "core/registry.h"

namespace opsin {

constinit KernelSlot<void (*)(const SgdParams&)> sgd_update("sgd");
constinit KernelSlot<void (*)(const AdamParams&)> adam_update("adam");
constinit KernelSlot<void (*)(const UnscaleParams&)> unscale_update("unscale_grads");
constinit KernelSlot<void (*)(const ScaleParams&)> scale_update("update_scale_");

namespace {

void check_list(const char* op, const char* what, TensorSpan params, TensorSpan list, bool may_be_empty) {
  if (may_be_empty && list.empty()) return;
  OPSIN_CHECK(ValueError, list.size() == params.size(), op, ": expected as many ", what,
              " as parameters, got ", list.size(), " and ", params.size());
  for (size_t i = 0; i < list.size(); ++i) {
    OPSIN_CHECK(ShapeError, list[i].sizes() == params[i].sizes(), op, ": expected ", what, " of shape ",
                str(params[i].sizes()), ", got ", str(list[i].sizes()));
    OPSIN_CHECK(TypeError, list[i].dtype() == params[i].dtype(), op, ": expected ", what, " of dtype ",
                name(params[i].dtype()), ", got ", name(list[i].dtype()));
    OPSIN_CHECK(Error, list[i].device() == params[i].device(), op, ": expected ", what, " on ",
                params[i].device().str(), ", got one on ", list[i].device().str(), " (move it with to())");
  }
}

/// Tensors of one device and dtype, in columns.
struct Group {
  Device device;
  DType dtype;
  std::vector<size_t> rows;  ///< Which of the lists.
  std::vector<int64_t> numel;
  std::vector<void*> data[TensorColumns::kMost];
  /// Stand-ins of tensors whose elements don't lie side by side, with what they stand for.
  std::vector<std::pair<Tensor, Tensor>> copies;

  TensorColumns columns() const {
    TensorColumns result{static_cast<int64_t>(numel.size()), numel.data(), {}, dtype};
    for (int c = 0; c < TensorColumns::kMost; ++c)
      if (!data[c].empty()) result.data[c] = data[c].data();
    return result;
  }
};

Group& group_of(std::vector<Group>& groups, const Tensor& tensor) {
  for (Group& group : groups)
    if (group.device == tensor.device() && group.dtype == tensor.dtype()) return group;
  groups.push_back({tensor.device(), tensor.dtype(), {}, {}, {}, {}});
  return groups.back();
}

/// Whether row i of all columns is channels-last in memory: the elements then correspond as they lie.
bool all_hidden(std::initializer_list<TensorSpan> columns, size_t i) {
  for (const TensorSpan column : columns) {
    if (column.empty()) continue;
    if (!column[i].is_contiguous() || !column[i].impl()->is_hidden()) return false;
  }
  return true;
}

/// Calls body(group) for the tensors of each device and dtype. Columns whose bit is set in `written` are
/// written; tensors whose memory is not row-major go through a copy.
template <class Slot, class Body>
void for_groups(const char* op, const Slot& slot, std::initializer_list<TensorSpan> columns, unsigned written,
                Body body) {
  profiler::Scope scope;
  if (profiler::wants(profiler::kOn)) [[unlikely]]
    scope.start(op, ProfilerEvent::Kind::kOp);
  const TensorSpan first = *columns.begin();
  std::vector<Group> groups;
  for (size_t i = 0; i < first.size(); ++i) {
    OPSIN_CHECK(TypeError, is_floating_point(first[i].dtype()), op, ": expected floating-point tensors, got ",
                name(first[i].dtype()));
    Group& group = group_of(groups, first[i]);
    const bool hidden = all_hidden(columns, i);
    group.rows.push_back(i);
    group.numel.push_back(first[i].numel());
    size_t c = 0;
    for (const TensorSpan column : columns) {
      if (!column.empty()) {
        const Tensor& original = column[i];
        TensorImpl* dense = original.impl();
        if (!original.is_contiguous()) {
          // A copy that is only read lives until the kernels are enqueued, too.
          group.copies.emplace_back(written >> c & 1 ? original.detach() : Tensor(), contiguous(original));
          dense = group.copies.back().second.impl();
        }
        group.data[c].push_back(hidden ? dense->mutable_physical_data() : dense->mutable_data());
      }
      ++c;
    }
  }
  for (const Group& group : groups) {
    body(slot.get(group.device, group.dtype), group);
    for (const auto& [original, dense] : group.copies)
      if (original.defined()) copy_(original, dense);
  }
  size_t c = 0;
  for (const TensorSpan column : columns) {
    if (written >> c++ & 1)
      for (const Tensor& tensor : column) tensor.bump_version();
  }
}

/// A learning rate that lies on a GPU, as the kernels there read it.
const float* learning_rate_of(const Tensor& lr, const Group& group, Tensor& kept) {
  if (!lr.defined()) return nullptr;
  OPSIN_CHECK(ShapeError, lr.numel() == 1, "optimizer: expected a learning rate of one element, got ",
              str(lr.sizes()));
  kept = contiguous(to(to(lr.detach(), kFloat32), group.device));
  return kept.data<float>();
}

AdamArgs adam_args(const AdamOptions& options, double step) {
  const double correction1 = 1 - std::pow(options.beta1, step);
  const double correction2 = 1 - std::pow(options.beta2, step);
  return {options.lr / correction1,
          options.beta1,
          1 - options.beta1,
          options.beta2,
          1 - options.beta2,
          1 / std::sqrt(correction2),
          options.eps,
          options.decoupled ? 0 : options.weight_decay,
          options.decoupled ? 1 - options.lr * options.weight_decay : 1,
          options.maximize ? -1.0 : 1.0,
          options.amsgrad};
}

}  // namespace

void sgd_step(TensorSpan params, TensorSpan grads, TensorSpan buffers, const SgdOptions& options,
              bool first_step, const Tensor& lr) {
  const NoGradGuard no_grad;
  if (lr.defined() && lr.device().is_cpu()) {
    SgdOptions known = options;
    known.lr = lr.item<double>();
    return sgd_step(params, grads, buffers, known, first_step);
  }
  check_list("sgd", "gradients", params, grads, false);
  check_list("sgd", "momentum buffers", params, buffers, options.momentum == 0);
  const bool has_buffer = options.momentum != 0;
  const SgdArgs args{options.lr,
                     options.momentum,
                     1 - options.dampening,
                     options.weight_decay,
                     options.maximize ? -1.0 : 1.0,
                     options.nesterov,
                     first_step,
                     has_buffer};
  for_groups("sgd", sgd_update, {params, grads, has_buffer ? buffers : TensorSpan()}, 0b101,
             [&](auto kernel, const Group& group) {
               Tensor kept;
               kernel({group.columns(), args, learning_rate_of(lr, group, kept)});
             });
}

void adam_step(TensorSpan params, TensorSpan grads, TensorSpan exp_avgs, TensorSpan exp_avg_sqs,
               TensorSpan max_exp_avg_sqs, int64_t step, const AdamOptions& options, const Tensor& lr,
               TensorSpan steps) {
  const NoGradGuard no_grad;
  if (lr.defined() && lr.device().is_cpu()) {
    AdamOptions known = options;
    known.lr = lr.item<double>();
    return adam_step(params, grads, exp_avgs, exp_avg_sqs, max_exp_avg_sqs, step, known, {}, steps);
  }
  OPSIN_CHECK(ValueError, step >= 1 || !steps.empty(), "adam: expected a step number of at least 1, got ",
              step);
  check_list("adam", "gradients", params, grads, false);
  check_list("adam", "exp_avgs", params, exp_avgs, false);
  check_list("adam", "exp_avg_sqs", params, exp_avg_sqs, false);
  check_list("adam", "max_exp_avg_sqs", params, max_exp_avg_sqs, !options.amsgrad);
  OPSIN_CHECK(ValueError, steps.empty() || steps.size() == params.size(),
              "adam: expected as many steps as parameters, got ", steps.size(), " and ", params.size());
  for (size_t i = 0; i < steps.size(); ++i) {
    OPSIN_CHECK(ValueError,
                params[i].device().is_cuda() && steps[i].device() == params[i].device() &&
                    steps[i].dtype() == kFloat32 && steps[i].numel() == 1,
                "adam: expected steps as float32 numbers on the parameters' GPU, got ",
                name(steps[i].dtype()), " ", str(steps[i].sizes()), " on ", steps[i].device().str(), " for ",
                params[i].device().str(), " (capturable=True is for GPUs)");
  }
  const AdamArgs args = adam_args(options, static_cast<double>(step));
  for_groups("adam", adam_update,
             {params, grads, exp_avgs, exp_avg_sqs, options.amsgrad ? max_exp_avg_sqs : TensorSpan()},
             0b11101, [&](auto kernel, const Group& group) {
               std::vector<float*> counters;
               if (!steps.empty())
                 for (const size_t i : group.rows) counters.push_back(steps[i].mutable_data<float>());
               Tensor kept;
               kernel({group.columns(), args, options.lr, options.decoupled ? options.weight_decay : 0, step,
                       learning_rate_of(lr, group, kept), steps.empty() ? nullptr : counters.data()});
             });
  for (const Tensor& counter : steps) counter.bump_version();
}

bool unscale_grads(TensorSpan grads, double factor) {
  const NoGradGuard no_grad;
  bool found = false;
  for_groups("unscale_grads", unscale_update, {grads}, 0b1, [&](auto kernel, const Group& group) {
    const Tensor lost = zeros(Dims{}, kFloat32, group.device);
    kernel({group.columns(), factor, nullptr, lost.mutable_data<float>()});
    found |= lost.item<bool>();
  });
  return found;
}

void unscale_grads(TensorSpan grads, const Tensor& scale, const Tensor& found_inf) {
  const NoGradGuard no_grad;
  for_groups("unscale_grads", unscale_update, {grads}, 0b1, [&](auto kernel, const Group& group) {
    OPSIN_CHECK(Error, scale.device() == group.device && found_inf.device() == group.device,
                "unscale_grads: expected scale and found_inf on ", group.device.str(), ", got them on ",
                scale.device().str(), " and ", found_inf.device().str());
    kernel({group.columns(), 0, scale.data<float>(), found_inf.mutable_data<float>()});
  });
  found_inf.bump_version();
}

void update_scale_(const Tensor& scale, const Tensor& growth_tracker, const Tensor& found_inf,
                   double growth_factor, double backoff_factor, int64_t growth_interval) {
  const NoGradGuard no_grad;
  OPSIN_CHECK(Error, scale.device() == found_inf.device() && scale.device() == growth_tracker.device(),
              "update_scale_: expected all tensors on one device, got ", scale.device().str(), ", ",
              growth_tracker.device().str(), " and ", found_inf.device().str());
  scale_update.get(scale.device(),
                   scale.dtype())({scale.mutable_data<float>(), growth_tracker.mutable_data<int32_t>(),
                                   found_inf.data<float>(), growth_factor, backoff_factor, growth_interval});
  scale.bump_version();
  growth_tracker.bump_version();
}

void register_optim(Registry&);

void register_optim(Registry&) { register_optim_cpu(); }

}  // namespace opsin

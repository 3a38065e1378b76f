// Optimizer steps: checks, and the split of many parameters over threads.
#include "optim_kernels.h"

#include <atomic>
#include <cmath>

#include <opsin/autograd.h>
#include <opsin/ops/copy.h>
#include <opsin/optim.h>

#include "core/profiler.h"
#include "cpu/thread_pool.h"

namespace opsin {

namespace {

constexpr int64_t kGrain = 16384;

void check_list(const char* op, const char* what, TensorSpan params, TensorSpan list, bool may_be_empty) {
  if (may_be_empty && list.empty()) return;
  OPSIN_CHECK(ValueError, list.size() == params.size(), op, ": expected as many ", what,
              " as parameters, got ", list.size(), " and ", params.size());
  for (size_t i = 0; i < list.size(); ++i) {
    OPSIN_CHECK(ShapeError, list[i].sizes() == params[i].sizes(), op, ": expected ", what, " of shape ",
                str(params[i].sizes()), ", got ", str(list[i].sizes()));
    OPSIN_CHECK(TypeError, list[i].dtype() == params[i].dtype(), op, ": expected ", what, " of dtype ",
                name(params[i].dtype()), ", got ", name(list[i].dtype()));
  }
}

/// Runs `loop(data, n, args)` over the elements of parameter i of all `lists` (the written ones first in
/// `written`); tensors whose memory is not row-major go through a copy.
template <class Loop, class Args>
void for_each_parameter(const char* op, Loop const (&loops)[kNumDTypes], const Args& args,
                        std::initializer_list<TensorSpan> lists, unsigned written) {
  profiler::Scope scope;
  if (profiler::wants(profiler::kOn)) [[unlikely]]
    scope.start(op, ProfilerEvent::Kind::kOp);
  const TensorSpan params = *lists.begin();
  for (size_t i = 0; i < params.size(); ++i) {
    const Loop loop = loops[static_cast<int>(params[i].dtype())];
    OPSIN_CHECK(TypeError, loop, op, ": expected floating-point parameters, got ", name(params[i].dtype()));
    char* data[5] = {};
    Tensor dense[5], original[5];
    size_t k = 0;
    for (const TensorSpan list : lists) {
      if (!list.empty()) {
        original[k] = list[i].detach();
        dense[k] = contiguous(original[k]);
        data[k] = dense[k].impl()->mutable_data();
      }
      ++k;
    }
    const auto item = static_cast<int64_t>(item_size(params[i].dtype()));
    cpu::parallel_for(params[i].numel(), kGrain, [&](int64_t begin, int64_t end) {
      char* part[5];
      for (size_t j = 0; j < 5; ++j) part[j] = data[j] ? data[j] + begin * item : nullptr;
      loop(part, end - begin, &args);
    });
    for (size_t j = 0; j < k; ++j) {
      if (!(written >> j & 1) || !dense[j].defined()) continue;
      if (!dense[j].is_same(original[j])) copy_(original[j], dense[j]);
      original[j].bump_version();
    }
  }
}

}  // namespace

void sgd_step(TensorSpan params, TensorSpan grads, TensorSpan buffers, const SgdOptions& options,
              bool first_step) {
  const NoGradGuard no_grad;
  check_list("sgd", "gradients", params, grads, false);
  check_list("sgd", "momentum buffers", params, buffers, options.momentum == 0);
  const bool has_buffer = options.momentum != 0;
  const cpu::SgdArgs args{options.lr,
                          options.momentum,
                          1 - options.dampening,
                          options.weight_decay,
                          options.maximize ? -1.0 : 1.0,
                          options.nesterov,
                          first_step,
                          has_buffer};
  for_each_parameter("sgd", OPSIN_ISA_SELECT(cpu::optim_table).sgd, args,
                     {params, grads, has_buffer ? buffers : TensorSpan()}, 0b101);
}

void adam_step(TensorSpan params, TensorSpan grads, TensorSpan exp_avgs, TensorSpan exp_avg_sqs,
               TensorSpan max_exp_avg_sqs, int64_t step, const AdamOptions& options) {
  const NoGradGuard no_grad;
  OPSIN_CHECK(ValueError, step >= 1, "adam: expected a step number of at least 1, got ", step);
  check_list("adam", "gradients", params, grads, false);
  check_list("adam", "exp_avgs", params, exp_avgs, false);
  check_list("adam", "exp_avg_sqs", params, exp_avg_sqs, false);
  check_list("adam", "max_exp_avg_sqs", params, max_exp_avg_sqs, !options.amsgrad);
  const double correction1 = 1 - std::pow(options.beta1, static_cast<double>(step));
  const double correction2 = 1 - std::pow(options.beta2, static_cast<double>(step));
  const cpu::AdamArgs args{options.lr / correction1,
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
  for_each_parameter("adam", OPSIN_ISA_SELECT(cpu::optim_table).adam, args,
                     {params, grads, exp_avgs, exp_avg_sqs, options.amsgrad ? max_exp_avg_sqs : TensorSpan()},
                     0b11101);
}

bool unscale_grads(TensorSpan grads, double factor) {
  const NoGradGuard no_grad;
  std::atomic<bool> found{false};
  for (const Tensor& grad : grads) {
    const auto loop = OPSIN_ISA_SELECT(cpu::optim_table).unscale[static_cast<int>(grad.dtype())];
    OPSIN_CHECK(TypeError, loop, "unscale_grads: expected floating-point gradients, got ",
                name(grad.dtype()));
    const Tensor original = grad.detach(), dense = contiguous(original);
    char* data = dense.impl()->mutable_data();
    const auto item = static_cast<int64_t>(item_size(grad.dtype()));
    cpu::parallel_for(dense.numel(), kGrain, [&](int64_t begin, int64_t end) {
      if (loop(data + begin * item, end - begin, factor)) found.store(true, std::memory_order_relaxed);
    });
    if (!dense.is_same(original)) copy_(original, dense);
    original.bump_version();
  }
  return found.load(std::memory_order_relaxed);
}

}  // namespace opsin

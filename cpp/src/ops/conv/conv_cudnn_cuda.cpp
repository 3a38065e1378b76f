// Convolution by cuDNN. Activations are channels-last there and here; weights are re-laid to
// [K, kernel..., C / groups] for the length of a call, unless that is the same order. What has no plan runs
// with the engine's own kernels and is counted.
#include "conv_cuda.h"

#include <algorithm>
#include <array>
#include <bit>
#include <limits>

#include <cuda_runtime.h>

#include "core/backend.h"
#include "core/backend_settings.h"
#include "cuda/api.h"
#include "cuda/current_stream.h"
#include "cuda/lru_cache.h"
#include "cuda/nvidia/cudnn_conv.h"
#include "cuda/nvidia/cudnn_handle.h"
#include "cuda/transpose.h"
#include "cuda/workspace.h"

namespace opsin {
namespace cuda {
namespace {

using cudnn::ConvProblem;
using cudnn::ConvProduct;
using cudnn::Plan;

/// Plans that a thread keeps.
constexpr size_t kPlans = 1024;
/// Plans that benchmark_algorithms() times, and how often each.
constexpr size_t kTimedPlans = 8;
constexpr int kTimedRuns = 4;

int64_t volume(const int64_t (&size)[3]) { return size[0] * size[1] * size[2]; }

/// The tensors of a call with their identifiers in the graph.
struct Operands {
  std::array<int64_t, 4> uids;
  std::array<void*, 4> pointers;
  size_t count = 0;

  void add(int64_t uid, const void* pointer) {
    uids[count] = uid;
    pointers[count++] = const_cast<void*>(pointer);
  }
  /// Of all of them, in bytes.
  int32_t alignment() const {
    uintptr_t bits = cudnn::kMostAlignment;
    for (size_t i = 0; i < count; ++i) bits |= reinterpret_cast<uintptr_t>(pointers[i]);
    return int32_t{1} << std::countr_zero(bits);
  }
  void run(cudnnHandle_t handle, const Plan& plan, void* workspace) const {
    cudnn::execute(handle, plan, {uids.data(), count}, {pointers.data(), count}, workspace);
  }
};

bool is_capturing() {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  return cudaStreamIsCapturing(static_cast<cudaStream_t>(current_stream()), &status) == cudaSuccess &&
         status != cudaStreamCaptureStatusNone;
}

/// Two events for timing.
struct Timer {
  api::Event start = api::create_event(true), end = api::create_event(true);
  ~Timer() {
    api::destroy_event(start);
    api::destroy_event(end);
  }
};

/// Milliseconds that a plan takes with the operands of this call; infinity where it cannot run.
float time_of(cudnnHandle_t handle, const Operands& operands, const Plan& plan, const Timer& timer) {
  try {
    const Workspace workspace(plan.workspace);
    operands.run(handle, plan, workspace.get());
    api::record_event(timer.start, current_stream());
    for (int run = 0; run < kTimedRuns; ++run) operands.run(handle, plan, workspace.get());
    api::record_event(timer.end, current_stream());
    api::synchronize_event(timer.end);
    return api::elapsed_time(timer.start, timer.end);
  } catch (const Error&) {
    return std::numeric_limits<float>::infinity();
  }
}

/// Leaves only the fastest plan.
void keep_fastest(cudnnHandle_t handle, const Operands& operands, std::vector<Plan>& plans) {
  const Timer timer;
  size_t best = 0;
  float best_time = std::numeric_limits<float>::infinity();
  for (size_t i = 0; i < plans.size(); ++i) {
    const float time = time_of(handle, operands, plans[i], timer);
    if (time < best_time) {
      best_time = time;
      best = i;
    }
  }
  std::swap(plans[0], plans[best]);
  while (plans.size() > 1) plans.pop_back();
}

/// One plan, or none where cuDNN refuses the graph or has no engine for it.
std::vector<Plan> make_plan(const ConvProblem& problem, cudnnHandle_t handle, const Operands& operands) {
  std::vector<Plan> plans;
  try {
    const cudnn::Target target(handle);
    const cudnn::Graph graph = cudnn::make_graph(problem, target);
    cudnn::PlanSearch search(target, graph, cudnn::engine_filter(problem));
    const size_t wanted = problem.benchmark ? kTimedPlans : 1;
    while (plans.size() < wanted && search.next(plans)) {
    }
  } catch (const Error&) {
    return plans;
  }
  if (plans.size() > 1) keep_fastest(handle, operands, plans);
  return plans;
}

/// Whether cuDNN has a plan; then it is launched.
bool run(ConvProblem& problem, const Operands& operands) {
  // Plans are not safe to share between threads, so each has its own.
  thread_local LruCache<ConvProblem, std::vector<Plan>> known(kPlans);
  const cudnnHandle_t handle = cudnn::handle();
  problem.device = active_device();
  problem.alignment = operands.alignment();
  problem.tf32 = static_cast<DType>(problem.dtype) == kFloat32 && allow_tf32_convolution();
  problem.deterministic = deterministic_algorithms();
  problem.benchmark = benchmark_algorithms();
  std::vector<Plan>* plans = known.find(problem);
  if (!plans && problem.benchmark && is_capturing()) [[unlikely]] {
    // Nothing can be timed now.
    problem.benchmark = false;
    plans = known.find(problem);
  }
  if (!plans) [[unlikely]]
    plans = &known.insert(problem, make_plan(problem, handle, operands));
  if (plans->empty()) return false;
  const Plan& plan = plans->front();
  const Workspace workspace(plan.workspace);
  operands.run(handle, plan, workspace.get());
  return true;
}

/// How weights lie: [K, rows, columns] here, [K, columns, rows] for cuDNN.
struct WeightOrder {
  int64_t filters, rows, columns;

  explicit WeightOrder(const ConvGeometry& g)
      : filters(g.out_channels), rows(g.in_channels / g.groups), columns(volume(g.kernel)) {}
  bool is_same() const { return rows == 1 || columns == 1; }
  int64_t bytes(DType dtype) const {
    return is_same() ? 0 : filters * rows * columns * static_cast<int64_t>(item_size(dtype));
  }
};

/// Weights in cuDNN's order.
class PackedWeight {
 public:
  PackedWeight(const ConvGeometry& g, DType dtype, const void* weight)
      : order_(g), memory_(order_.bytes(dtype)), weight_(weight) {
    if (order_.is_same()) return;
    transpose(weight, memory_.get(), order_.filters, order_.rows, order_.columns, item_size(dtype));
  }
  const void* get() const { return order_.is_same() ? weight_ : memory_.get(); }

 private:
  WeightOrder order_;
  Workspace memory_;
  const void* weight_;
};

/// y [N, in + padding..., C] of x [N, in..., C]: zeros around it. Negative padding leaves pixels out.
void write_padding(const ConvGeometry& g, DType dtype, const void* x, void* y) {
  const auto pixel = static_cast<size_t>(g.in_channels) * item_size(dtype);
  size_t from[3], to[3], skipped[3], first[3], count[3];
  for (int i = 0; i < 3; ++i) {
    const int64_t size = g.in[i] + g.pad_begin[i] + g.pad_end[i];
    const int64_t before = std::max<int64_t>(g.pad_begin[i], 0), cut = std::max<int64_t>(-g.pad_begin[i], 0);
    from[i] = static_cast<size_t>(g.in[i]);
    to[i] = static_cast<size_t>(size);
    skipped[i] = static_cast<size_t>(cut);
    first[i] = static_cast<size_t>(before);
    count[i] = static_cast<size_t>(std::clamp<int64_t>(std::min(g.in[i] - cut, size - before), 0, size));
  }
  const size_t x_bytes = from[0] * from[1] * from[2] * pixel, y_bytes = to[0] * to[1] * to[2] * pixel;
  const auto batch = static_cast<size_t>(g.batch);
  api::fill(y, 0, batch * y_bytes, current_stream());
  if (count[0] * count[1] * count[2] == 0) return;
  // Images without depth are copied as the planes of one.
  const bool flat = from[0] == 1 && to[0] == 1;
  for (size_t image = 0; image < (flat ? 1 : batch); ++image) {
    cudaMemcpy3DParms copy{};
    auto* const source = static_cast<char*>(const_cast<void*>(x)) + image * x_bytes;
    copy.srcPtr = make_cudaPitchedPtr(source, from[2] * pixel, from[2] * pixel, from[1]);
    copy.srcPos = make_cudaPos(skipped[2] * pixel, skipped[1], skipped[0]);
    copy.dstPtr =
        make_cudaPitchedPtr(static_cast<char*>(y) + image * y_bytes, to[2] * pixel, to[2] * pixel, to[1]);
    copy.dstPos = make_cudaPos(first[2] * pixel, first[1], first[0]);
    copy.extent = make_cudaExtent(count[2] * pixel, count[1], flat ? batch : count[0]);
    copy.kind = cudaMemcpyDeviceToDevice;
    const cudaError_t error = cudaMemcpy3DAsync(&copy, static_cast<cudaStream_t>(current_stream()));
    OPSIN_CHECK(Error, error == cudaSuccess, "conv: ", cudaGetErrorString(error));
  }
}

bool run_forward(const ConvGeometry& g, DType dtype, const void* x, const void* weight, const void* bias,
                 void* y) {
  ConvProblem problem;
  if (!cudnn::make_problem(ConvProduct::kForward, g, dtype, problem)) return false;
  const PackedWeight packed(g, dtype, weight);
  Operands operands;
  operands.add(cudnn::kX, x);
  operands.add(cudnn::kWeight, packed.get());
  operands.add(cudnn::kY, y);
  if (bias) {
    Operands fused = operands;
    fused.add(cudnn::kBias, bias);
    problem.bias = 1;
    if (run(problem, fused)) return true;
    problem.bias = 0;
  }
  if (!run(problem, operands)) {
    count_fallback(cudnn::describe(problem));
    return false;
  }
  if (bias) add_bias(dtype, bias, g.batch * volume(g.out), g.out_channels, y);
  return true;
}

bool run_backward_input(const ConvGeometry& g, DType dtype, const void* grad_y, const void* weight,
                        void* grad_x) {
  ConvProblem problem;
  if (!cudnn::make_problem(ConvProduct::kBackwardInput, g, dtype, problem)) return false;
  const PackedWeight packed(g, dtype, weight);
  Operands operands;
  operands.add(cudnn::kY, grad_y);
  operands.add(cudnn::kWeight, packed.get());
  operands.add(cudnn::kX, grad_x);
  if (run(problem, operands)) return true;
  count_fallback(cudnn::describe(problem));
  return false;
}

bool run_backward_weight(const ConvGeometry& g, DType dtype, const void* x, const void* grad_y,
                         void* grad_weight) {
  ConvProblem problem;
  const cudnn::EvenPadding even(g);
  const ConvGeometry& e = even.geometry;
  if (!cudnn::make_problem(ConvProduct::kBackwardWeight, e, dtype, problem)) return false;
  const int64_t bytes = e.batch * volume(e.in) * e.in_channels * static_cast<int64_t>(item_size(dtype));
  const Workspace padded(even.writes ? bytes : 0);
  if (even.writes) write_padding(even.written, dtype, x, padded.get());
  const WeightOrder order(g);
  const Workspace packed(order.bytes(dtype));
  Operands operands;
  operands.add(cudnn::kX, even.writes ? padded.get() : x);
  operands.add(cudnn::kY, grad_y);
  operands.add(cudnn::kWeight, order.is_same() ? grad_weight : packed.get());
  if (!run(problem, operands)) {
    count_fallback(cudnn::describe(problem));
    return false;
  }
  if (!order.is_same()) {
    transpose(packed.get(), grad_weight, order.filters, order.columns, order.rows, item_size(dtype));
  }
  return true;
}

void forward(const ConvGeometry& g, DType dtype, const void* x, const void* weight, const void* bias,
             void* y) {
  if (!run_forward(g, dtype, x, weight, bias, y)) cuda::conv_forward(g, dtype, x, weight, bias, y);
}

void backward_input(const ConvGeometry& g, DType dtype, const void* grad_y, const void* weight,
                    void* grad_x) {
  if (!run_backward_input(g, dtype, grad_y, weight, grad_x)) {
    cuda::conv_backward_input(g, dtype, grad_y, weight, grad_x);
  }
}

void backward_weight(const ConvGeometry& g, DType dtype, const void* x, const void* grad_y, void* grad_weight,
                     void* grad_bias) {
  const bool done = run_backward_weight(g, dtype, x, grad_y, grad_weight);
  if (!done || grad_bias) {
    cuda::conv_backward_weight(g, dtype, x, grad_y, done ? nullptr : grad_weight, grad_bias);
  }
}

}  // namespace
}  // namespace cuda

void register_conv_cudnn_cuda() {
  for (const DType dtype : {kFloat16, kBFloat16, kFloat32, kFloat64}) {
    conv_forward.set(DeviceType::kCUDA, dtype, cuda::forward);
    conv_backward_input.set(DeviceType::kCUDA, dtype, cuda::backward_input);
    conv_backward_weight.set(DeviceType::kCUDA, dtype, cuda::backward_weight);
  }
}

}  // namespace opsin

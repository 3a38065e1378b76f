// Optimizer steps on a GPU: many tensors with one launch, whose addresses are arguments of the kernel. A
// block takes a part of one tensor.
#include "optim_functors.h"

#include "cuda/access.h"
#include "cuda/block.h"
#include "cuda/scratch.h"

namespace opsin {

namespace {

using namespace cuda;

constexpr unsigned kThreads = 256;
constexpr int kWidth = 4;  // neighbours that a thread takes at once
constexpr int64_t kPart = int64_t{kThreads} * kWidth * 4;

/// As many tensors as 4 KB of arguments hold.
template <int kColumns>
struct Parts {
  static constexpr int kTensors = 3584 / (kColumns * 8 + 16);

  char* data[kColumns][kTensors];
  int64_t numel[kTensors];
  uint32_t first[kTensors];  ///< The first block of each tensor.
  int row[kTensors];         ///< Which of all tensors it is.
  int count;
  DType dtype;
  unsigned size;
};

/// A part of one tensor, in a block.
template <int kColumns>
struct Part {
  char* data[kColumns];
  int64_t begin, end;
  int row;
  bool aligned;

  __device__ explicit Part(const Parts<kColumns>& parts) {
    int tensor = 0;
    for (int below = parts.count; below - tensor > 1;) {
      const int middle = (tensor + below) / 2;
      (parts.first[middle] <= blockIdx.x ? tensor : below) = middle;
    }
    begin = (blockIdx.x - parts.first[tensor]) * kPart;
    end = min(begin + kPart, parts.numel[tensor]);
    row = parts.row[tensor];
    uint64_t bits = 0;
    OPSIN_UNROLL
    for (int c = 0; c < kColumns; ++c) {
      data[c] = parts.data[c][tensor];
      bits |= reinterpret_cast<uint64_t>(data[c]);
    }
    aligned = bits % min(16u, parts.size * kWidth) == 0;
  }

  /// Calls f(x) for arrays x of an element of each column, which it may change; the columns whose bit is set
  /// in `written` are written.
  template <class T, class F>
  __device__ __forceinline__ void run(const Parts<kColumns>& parts, unsigned written, F f) const {
    T x[kColumns][kWidth], element[kColumns];
    for (int64_t i = begin + threadIdx.x * kWidth; i < end; i += kThreads * kWidth) {
      const bool whole = aligned && i + kWidth <= end;
      OPSIN_UNROLL
      for (int c = 0; c < kColumns; ++c) {
        if (!data[c]) continue;
        if (whole) {
          load(x[c], data[c] + i * parts.size, parts.dtype);
        } else {
          for (int k = 0; k < kWidth; ++k) {
            x[c][k] = i + k < end ? load<T>(data[c] + (i + k) * parts.size, parts.dtype) : T(0);
          }
        }
      }
      OPSIN_UNROLL
      for (int k = 0; k < kWidth; ++k) {
        OPSIN_UNROLL
        for (int c = 0; c < kColumns; ++c) element[c] = data[c] ? x[c][k] : T(0);
        f(element);
        OPSIN_UNROLL
        for (int c = 0; c < kColumns; ++c) x[c][k] = element[c];
      }
      OPSIN_UNROLL
      for (int c = 0; c < kColumns; ++c) {
        if (!data[c] || (written >> c & 1) == 0) continue;
        if (whole) {
          store(x[c], data[c] + i * parts.size, parts.dtype);
        } else {
          for (int k = 0; k < kWidth; ++k) {
            if (i + k < end) store(x[c][k], data[c] + (i + k) * parts.size, parts.dtype);
          }
        }
      }
    }
  }
};

/// Calls launch(parts, blocks) for all tensors, as many at a time as fit.
template <int kColumns, class Launch>
void for_parts(const TensorColumns& tensors, Launch launch) {
  Parts<kColumns> parts{};
  parts.dtype = tensors.dtype;
  parts.size = static_cast<unsigned>(item_size(tensors.dtype));
  int64_t blocks = 0;
  for (int64_t t = 0; t < tensors.count; ++t) {
    if (tensors.numel[t] > 0) {
      for (int c = 0; c < kColumns; ++c) {
        parts.data[c][parts.count] = tensors.data[c] ? static_cast<char*>(tensors.data[c][t]) : nullptr;
      }
      parts.numel[parts.count] = tensors.numel[t];
      parts.row[parts.count] = static_cast<int>(t);
      parts.first[parts.count++] = static_cast<uint32_t>(blocks);
      blocks += (tensors.numel[t] - 1) / kPart + 1;
    }
    if (parts.count == Parts<kColumns>::kTensors || (t + 1 == tensors.count && parts.count > 0)) {
      launch(parts, static_cast<unsigned>(blocks));
      parts.count = 0;
      blocks = 0;
    }
  }
}

/// A 16-bit value as it comes back from memory.
template <class T>
__device__ __forceinline__ T as_stored(T value, DType dtype) {
  if constexpr (std::is_same_v<T, float>) {
    if (dtype != kFloat32) return widen(narrow(value, dtype), dtype);
  }
  return value;
}

enum class Momentum : uint8_t { kNone, kFirst, kNext };

template <class T>
__global__ void __launch_bounds__(kThreads)
    sgd_kernel(const Parts<3> parts, optim::Sgd<T> step, Momentum momentum, const float* lr) {
  if (lr) step.lr = static_cast<T>(*lr);
  const Part<3> part(parts);
  part.template run<T>(parts, 0b101, [&](T(&x)[3]) {
    if (momentum == Momentum::kNone) {
      step.plain(x[0], x[1]);
    } else if (momentum == Momentum::kFirst) {
      step.first(x[0], x[1], x[2]);
    } else {
      step.next(x[0], x[1], x[2]);
    }
  });
}

void sgd(const SgdParams& p) {
  const Momentum momentum = !p.args.has_buffer  ? Momentum::kNone
                            : p.args.first_step ? Momentum::kFirst
                                                : Momentum::kNext;
  for_parts<3>(p.tensors, [&](const Parts<3>& parts, unsigned blocks) {
    if (p.tensors.dtype == kFloat64) {
      OPSIN_LAUNCH(sgd_kernel<double>, blocks, kThreads, 0, parts, optim::Sgd<double>(p.args), momentum,
                   p.lr);
    } else {
      OPSIN_LAUNCH(sgd_kernel<float>, blocks, kThreads, 0, parts, optim::Sgd<float>(p.args), momentum, p.lr);
    }
  });
}

/// What the numbers of a step are made from, where the host does not know it all.
struct Schedule {
  double lr, beta1, beta2, decoupled_decay, step;
  const float* lr_pointer;
};

/// The numbers that depend on it.
struct Numbers {
  double step_size, correction, shrink;
};

/// As many counters of steps as 4 KB of arguments hold.
struct Counters {
  static constexpr int kTensors = 448;

  float* step[kTensors];
  int count;
};

/// Counts up the steps of the tensors, if they have any, and makes the numbers of each.
__global__ void __launch_bounds__(kWarpThreads)
    count_kernel(const Counters counters, const Schedule schedule, Numbers* numbers) {
  const auto i = static_cast<int>(thread_rank());
  if (i >= counters.count) return;
  const double lr = schedule.lr_pointer ? static_cast<double>(*schedule.lr_pointer) : schedule.lr;
  float* const counter = counters.step[i];
  const double step = counter ? static_cast<double>(*counter += 1) : schedule.step;
  numbers[i] = {lr / (1 - math::pow(schedule.beta1, step)),
                1 / math::sqrt(1 - math::pow(schedule.beta2, step)), 1 - lr * schedule.decoupled_decay};
}

/// The numbers of every tensor; empty if they are the same for all and known.
Scratch<Numbers> count_steps(const AdamParams& p) {
  if (!p.steps && !p.lr_pointer) return {};
  const Schedule schedule{
      p.lr, p.args.beta1, p.args.beta2, p.decoupled_decay, static_cast<double>(p.step), p.lr_pointer};
  Scratch<Numbers> numbers(p.tensors.count);
  for (int64_t t = 0; t < p.tensors.count; t += Counters::kTensors) {
    Counters counters{};
    counters.count = static_cast<int>(std::min<int64_t>(Counters::kTensors, p.tensors.count - t));
    for (int i = 0; i < counters.count; ++i) counters.step[i] = p.steps ? p.steps[t + i] : nullptr;
    OPSIN_LAUNCH(count_kernel, grid_for(counters.count, kWarpThreads), kWarpThreads, 0, counters, schedule,
                 numbers.data() + t);
  }
  return numbers;
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    adam_kernel(const Parts<5> parts, optim::Adam<T> adam, const Numbers* numbers) {
  const Part<5> part(parts);
  if (numbers) {
    adam.step_size = static_cast<T>(numbers[part.row].step_size);
    adam.correction = static_cast<T>(numbers[part.row].correction);
    adam.shrink = static_cast<T>(numbers[part.row].shrink);
  }
  const bool amsgrad = part.data[4] != nullptr;
  part.template run<T>(parts, 0b11101, [&](T(&x)[5]) {
    adam.average(x[0], x[1], x[2], x[3]);
    T largest = x[3];
    if (amsgrad) x[4] = largest = x[4] < largest ? largest : x[4];
    x[0] = adam.template moved<T>(x[0], as_stored(x[2], parts.dtype), largest);
  });
}

void adam(const AdamParams& p) {
  const Scratch<Numbers> numbers = count_steps(p);
  for_parts<5>(p.tensors, [&](const Parts<5>& parts, unsigned blocks) {
    if (p.tensors.dtype == kFloat64) {
      OPSIN_LAUNCH(adam_kernel<double>, blocks, kThreads, 0, parts, optim::Adam<double>(p.args),
                   numbers.data());
    } else {
      OPSIN_LAUNCH(adam_kernel<float>, blocks, kThreads, 0, parts, optim::Adam<float>(p.args),
                   numbers.data());
    }
  });
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    unscale_kernel(const Parts<1> parts, double factor, const float* scale, float* found_inf) {
  const auto by = static_cast<T>(scale ? static_cast<float>(1.0 / static_cast<double>(*scale)) : factor);
  const Part<1> part(parts);
  bool found = false;
  part.template run<T>(parts, 0b1, [&](T(&x)[1]) {
    found |= optim::is_lost(x[0]);
    x[0] = x[0] * by;
  });
  if (found) *found_inf = 1;
}

void unscale(const UnscaleParams& p) {
  for_parts<1>(p.tensors, [&](const Parts<1>& parts, unsigned blocks) {
    if (p.tensors.dtype == kFloat64) {
      OPSIN_LAUNCH(unscale_kernel<double>, blocks, kThreads, 0, parts, p.factor, p.scale, p.found_inf);
    } else {
      OPSIN_LAUNCH(unscale_kernel<float>, blocks, kThreads, 0, parts, p.factor, p.scale, p.found_inf);
    }
  });
}

__global__ void scale_kernel(const ScaleParams p) { optim::update_scale(p); }

void scale(const ScaleParams& p) { OPSIN_LAUNCH(scale_kernel, 1, 1, 0, p); }

}  // namespace

void register_optim_cuda();

void register_optim_cuda() {
  constexpr auto kDevice = DeviceType::kCUDA;
  for (const DType dtype : {kFloat16, kBFloat16, kFloat32, kFloat64}) {
    sgd_update.set(kDevice, dtype, sgd);
    adam_update.set(kDevice, dtype, adam);
    unscale_update.set(kDevice, dtype, unscale);
  }
  scale_update.set(kDevice, kFloat32, scale);
}

}  // namespace opsin

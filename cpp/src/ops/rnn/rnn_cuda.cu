// Recurrent layers on a GPU: the product of all inputs, then for each step the product with h and a kernel
// for the gates. Products of 16-bit floats come in their dtype; gates and states are kept in float32.
#include "ops/matmul/matmul_kernels.h"
#include "rnn_kernels.h"
#include "rnn_math.h"

#include <optional>

#include "cuda/access.h"
#include "cuda/block.h"
#include "cuda/scratch.h"

namespace opsin {

namespace {

using namespace cuda;

constexpr unsigned kThreads = 256;

/// Values as they lie in memory.
template <class T>
struct Stored {
  char* data;
  DType dtype;

  __device__ T get(int64_t i) const {
    return load<T>(data + i * static_cast<int64_t>(item_size(dtype)), dtype);
  }
  __device__ void set(int64_t i, T value) const {
    store(value, data + i * static_cast<int64_t>(item_size(dtype)), dtype);
  }
};
/// From element `first`; null stays.
template <class T>
Stored<T> stored(const void* data, DType dtype, int64_t first = 0) {
  char* const bytes = static_cast<char*>(const_cast<void*>(data));
  return {bytes ? bytes + first * static_cast<int64_t>(item_size(dtype)) : nullptr, dtype};
}
template <class T>
constexpr DType kComputed = sizeof(T) == 8 ? kFloat64 : kFloat32;

/// to[i] = a[i] + b[i]; b may be null.
template <class T>
__global__ void __launch_bounds__(kThreads)
    add_values(Stored<T> a, Stored<T> b, Stored<T> to, int64_t count) {
  OPSIN_NO_UNROLL
  for (int64_t i = thread_rank(); i < count; i += thread_count())
    to.set(i, b.data ? a.get(i) + b.get(i) : a.get(i));
}
template <class T>
void add_all(Stored<T> a, Stored<T> b, Stored<T> to, int64_t count) {
  OPSIN_LAUNCH((add_values<T>), grid_for(count, kThreads), kThreads, 0, a, b, to, count);
}
template <class T>
void move(Stored<T> from, Stored<T> to, int64_t count) {
  add_all<T>(from, {nullptr, from.dtype}, to, count);
}

template <class T>
struct ForwardStep {
  RnnKind kind;
  int64_t rows, hidden;
  Stored<T> of_x, of_h;  ///< The sums, [rows, gates].
  T* kept;
  T* c;
  Stored<T> h, out;
};

/// A thread for each hidden unit of each sequence.
template <class T>
__global__ void __launch_bounds__(kThreads) forward_gates(const __grid_constant__ ForwardStep<T> p) {
  const int64_t n = p.hidden, gates = rnn_gates(p.kind) * n;
  OPSIN_NO_UNROLL
  for (int64_t i = thread_rank(); i < p.rows * n; i += thread_count()) {
    const int64_t row = i / n, at = row * gates + i - row * n;
    T* const kept = p.kept + row * rnn_kept(p.kind) * n + i - row * n;
    const auto sum = [&](int g) { return p.of_x.get(at + g * n) + p.of_h.get(at + g * n); };
    if (p.kind == RnnKind::kLstm) {
      rnn::LstmGates<T> x{sum(0), sum(1), sum(2), sum(3)};
      kept[4 * n] = p.c[i];
      p.out.set(i, rnn::lstm_forward(x, p.c[i]));
      kept[0] = x.i;
      kept[n] = x.f;
      kept[2 * n] = x.g;
      kept[3 * n] = x.o;
    } else if (p.kind == RnnKind::kGru) {
      rnn::GruGates<T> x{sum(0), sum(1), p.of_x.get(at + 2 * n), p.of_h.get(at + 2 * n)};
      p.out.set(i, rnn::gru_forward(x, p.h.get(i)));
      kept[0] = x.r;
      kept[n] = x.z;
      kept[2 * n] = x.n;
      kept[3 * n] = x.hn;
    } else {
      kept[0] = rnn::rnn_forward(sum(0), p.kind == RnnKind::kRelu);
      p.out.set(i, kept[0]);
    }
  }
}

template <class T>
struct BackwardStep {
  RnnKind kind;
  int64_t rows, hidden;
  const T* kept;
  Stored<T> h;
  Stored<T> grad_y;  ///< Or null.
  Stored<T> grad_h;
  T *round, *grad_c;  ///< What goes round the gates of GRU; the gradient of c.
  Stored<T> of_x, of_h;
};

template <class T>
__global__ void __launch_bounds__(kThreads) backward_gates(const __grid_constant__ BackwardStep<T> p) {
  const int64_t n = p.hidden, gates = rnn_gates(p.kind) * n;
  OPSIN_NO_UNROLL
  for (int64_t i = thread_rank(); i < p.rows * n; i += thread_count()) {
    const int64_t row = i / n, at = row * gates + i - row * n;
    const T* const kept = p.kept + row * rnn_kept(p.kind) * n + i - row * n;
    T g = p.grad_h.get(i);
    if (p.grad_y.data) g += p.grad_y.get(i);
    if (p.kind == RnnKind::kLstm) {
      const rnn::LstmGates<T> slopes =
          rnn::lstm_backward({kept[0], kept[n], kept[2 * n], kept[3 * n]}, kept[4 * n], g, p.grad_c[i]);
      p.of_x.set(at, slopes.i);
      p.of_x.set(at + n, slopes.f);
      p.of_x.set(at + 2 * n, slopes.g);
      p.of_x.set(at + 3 * n, slopes.o);
    } else if (p.kind == RnnKind::kGru) {
      const rnn::GruGates<T> slopes =
          rnn::gru_backward({kept[0], kept[n], kept[2 * n], kept[3 * n]}, p.h.get(i), g);
      p.round[i] = g * kept[n];
      p.of_x.set(at, slopes.r);
      p.of_x.set(at + n, slopes.z);
      p.of_x.set(at + 2 * n, slopes.n);
      p.of_h.set(at, slopes.r);
      p.of_h.set(at + n, slopes.z);
      p.of_h.set(at + 2 * n, slopes.hn);
    } else {
      p.of_x.set(at, rnn::rnn_backward(kept[0], g, p.kind == RnnKind::kRelu));
    }
  }
}

/// c [m, n] (+)= a [m, k] B + bias, B being b [k, n] or the transpose of b [n, k].
void multiply(DType dtype, int64_t m, int64_t n, int64_t k, const void* a, const void* b, bool transposed,
              const void* bias, void* c, bool accumulate = false) {
  MatmulParams p;
  p.m = m;
  p.n = n;
  p.k = k;
  p.a = a;
  p.a_row = k;
  p.a_col = 1;
  p.b = b;
  p.b_row = transposed ? 1 : n;
  p.b_col = transposed ? k : 1;
  p.c = c;
  p.c_row = n;
  p.bias = bias;
  p.accumulate = accumulate;
  matmul_forward.get(kernel_device(), dtype)(p);
}

template <class T>
void forward(const RnnForwardParams& p) {
  const auto item = static_cast<int64_t>(item_size(p.dtype));
  const int64_t batch = p.batch(), outputs = p.outputs, hidden = p.hidden, gates = p.gates();
  const auto element = [&](const void* data, int64_t i) { return stored<T>(data, p.dtype, i); };
  const Scratch<char> of_x(p.rows * gates * item), of_h(batch * gates * item), start(batch * outputs * item);
  const Scratch<char> inner = p.w_hr ? Scratch<char>(batch * hidden * item) : Scratch<char>();
  const Scratch<T> c = p.kind == RnnKind::kLstm ? Scratch<T>(batch * hidden) : Scratch<T>();
  if (c.data()) move(element(p.c0, 0), stored<T>(c.data(), kComputed<T>), batch * hidden);
  multiply(p.dtype, p.rows, gates, p.inputs, p.x, p.w_ih, true, p.b_ih, of_x.data());
  Stored<T> before = element(p.h0, 0);
  int64_t rows = batch;
  for_rnn_steps(p, false, [&](int64_t t, int64_t first) {
    const int64_t n = p.batch_sizes[t];
    if (n > rows) {
      // Sequences that begin here, the last steps of others being done.
      move(before, element(start.data(), 0), rows * outputs);
      move(element(p.h0, rows * outputs), element(start.data(), rows * outputs), (n - rows) * outputs);
      before = element(start.data(), 0);
    }
    const Stored<T> y = element(p.y, first * outputs);
    multiply(p.dtype, n, gates, outputs, before.data, p.w_hh, true, p.b_hh, of_h.data());
    const ForwardStep<T> step{p.kind,
                              n,
                              hidden,
                              element(of_x.data(), first * gates),
                              element(of_h.data(), 0),
                              static_cast<T*>(p.kept) + first * p.kept_size(),
                              c.data(),
                              before,
                              p.w_hr ? element(inner.data(), 0) : y};
    OPSIN_LAUNCH((forward_gates<T>), grid_for(n * hidden, kThreads), kThreads, 0, step);
    if (p.w_hr) multiply(p.dtype, n, outputs, hidden, inner.data(), p.w_hr, true, nullptr, y.data);
    before = y;
    rows = n;
    // The sequences that end here.
    const int64_t left = p.reverse ? (t == 0 ? 0 : n) : t + 1 < p.steps ? p.batch_sizes[t + 1] : 0;
    if (left < n)
      move(element(p.y, (first + left) * outputs), element(p.h_n, left * outputs), (n - left) * outputs);
  });
  if (c.data()) move(stored<T>(c.data(), kComputed<T>), element(p.c_n, 0), batch * hidden);
}

template <class T>
void backward(const RnnBackwardParams& p) {
  const auto item = static_cast<int64_t>(item_size(p.dtype));
  const int64_t batch = p.batch(), outputs = p.outputs, hidden = p.hidden, gates = p.gates();
  const bool is_gru = p.kind == RnnKind::kGru, same_type = p.dtype == kComputed<T>;
  const auto element = [&](const void* data, int64_t i) { return stored<T>(data, p.dtype, i); };
  const Scratch<char> product = same_type ? Scratch<char>() : Scratch<char>(batch * outputs * item);
  const Scratch<char> inner = p.w_hr ? Scratch<char>(batch * hidden * item) : Scratch<char>();
  const Stored<T> grad_h = stored<T>(p.grad_h, kComputed<T>);
  // The gradient of h before a step, from its gates.
  const auto add_gates = [&](int64_t first, int64_t n) {
    const char* const slopes = element(p.grad_h_gates, first * gates).data;
    if (same_type) {
      multiply(p.dtype, n, outputs, gates, slopes, p.w_hh, false, nullptr, p.grad_h, is_gru);
    } else {
      multiply(p.dtype, n, outputs, gates, slopes, p.w_hh, false, nullptr, product.data());
      add_all(element(product.data(), 0), is_gru ? grad_h : stored<T>(nullptr, kComputed<T>), grad_h,
              n * outputs);
    }
  };
  int64_t done = 0, done_rows = 0;
  for_rnn_steps(p, true, [&](int64_t t, int64_t first) {
    const int64_t n = p.batch_sizes[t];
    if (done_rows > 0) add_gates(done, done_rows);
    Stored<T> grad_y = element(p.grad_y, first * outputs), of_step = grad_h;
    if (p.w_hr) {
      const Stored<T> all = element(p.grad_outputs, first * outputs);
      add_all(grad_h, grad_y, all, n * outputs);
      multiply(p.dtype, n, hidden, outputs, all.data, p.w_hr, false, nullptr, inner.data());
      grad_y.data = nullptr;
      of_step = element(inner.data(), 0);
    }
    const BackwardStep<T> step{p.kind,
                               n,
                               hidden,
                               static_cast<const T*>(p.kept) + first * p.kept_size(),
                               element(p.previous, first * outputs),
                               grad_y,
                               of_step,
                               static_cast<T*>(p.grad_h),
                               static_cast<T*>(p.grad_c),
                               element(p.grad_x_gates, first * gates),
                               element(p.grad_h_gates, first * gates)};
    OPSIN_LAUNCH((backward_gates<T>), grid_for(n * hidden, kThreads), kThreads, 0, step);
    done = first;
    done_rows = n;
  });
  if (p.wants_h0) add_gates(done, done_rows);
}

}  // namespace

void register_rnn_cuda() {
  for (const DType dtype : {kFloat16, kBFloat16, kFloat32, kFloat64}) {
    const bool wide = dtype == kFloat64;
    rnn_forward.set(DeviceType::kCUDA, dtype, wide ? forward<double> : forward<float>);
    rnn_backward.set(DeviceType::kCUDA, dtype, wide ? backward<double> : backward<float>);
  }
}

}  // namespace opsin

// What scans on a GPU merge: a State stands for a run of elements, and merge(a, b) is that of a run a
// followed by a run b. All merges are associative but for rounding.
#pragma once

#include "scan_kernels.h"

#include <limits>

#include "core/math.h"
#include "cuda/access.h"

namespace opsin::scan {

/// An element in the type that it is computed in: double, int64_t or Complex<double>.
template <class T>
__device__ __forceinline__ T read(const void* data, int64_t at, DType dtype, unsigned size) {
  const char* from = static_cast<const char*>(data) + at * size;
  if constexpr (std::is_same_v<T, double>) {
    return dtype == kFloat64 ? cuda::load<double>(from, dtype) : cuda::load<float>(from, dtype);
  } else if constexpr (std::is_same_v<T, int64_t>) {
    return cuda::load<int64_t>(from, dtype);
  } else {
    if (dtype == kComplex128) return cuda::load<cuda::Complex<double>>(from, dtype);
    const auto value = cuda::load<cuda::Complex<float>>(from, dtype);
    return {value.real, value.imag};
  }
}
template <class T>
__device__ __forceinline__ void write(T value, void* data, int64_t at, DType dtype, unsigned size) {
  char* to = static_cast<char*>(data) + at * size;
  if constexpr (std::is_same_v<T, double>) {
    if (dtype == kFloat64) return cuda::store(value, to, dtype);
    cuda::store(static_cast<float>(value), to, dtype);
  } else if constexpr (std::is_same_v<T, int64_t>) {
    cuda::store(dtype == kBool ? static_cast<int64_t>(value != 0) : value, to, dtype);
  } else {
    if (dtype == kComplex128) return cuda::store(value, to, dtype);
    cuda::store(cuda::Complex<float>{static_cast<float>(value.real), static_cast<float>(value.imag)}, to,
                dtype);
  }
}

/// What the states of a launch need to know. `flag` is the op's own.
struct Source {
  ScanParams p;
  unsigned size;
  bool flag;
};

template <class T>
struct Arithmetic {
  static constexpr bool kComplex = std::is_same_v<T, cuda::Complex<double>>;
  __device__ static T number(int value) {
    if constexpr (kComplex) {
      return {static_cast<double>(value), 0};
    } else {
      return static_cast<T>(value);
    }
  }
  __device__ static T add(T a, T b) {
    if constexpr (kComplex) {
      return {a.real + b.real, a.imag + b.imag};
    } else if constexpr (std::is_integral_v<T>) {
      return static_cast<T>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
    } else {
      return a + b;
    }
  }
  __device__ static T multiply(T a, T b) {
    if constexpr (kComplex) {
      return {a.real * b.real - a.imag * b.imag, a.real * b.imag + a.imag * b.real};
    } else if constexpr (std::is_integral_v<T>) {
      return static_cast<T>(static_cast<uint64_t>(a) * static_cast<uint64_t>(b));
    } else {
      return a * b;
    }
  }
  __device__ static bool is_zero(T a) {
    if constexpr (kComplex) {
      return a.real == 0 && a.imag == 0;
    } else {
      return a == 0;
    }
  }
};

template <class T>
struct Sum {
  using State = T;
  __device__ static State identity() { return Arithmetic<T>::number(0); }
  __device__ static State load(const Source& s, int64_t at, int64_t) {
    return read<T>(s.p.x, at, s.p.dtype, s.size);
  }
  __device__ static State merge(const Source&, State a, State b) { return Arithmetic<T>::add(a, b); }
  __device__ static void store(const Source& s, int64_t at, State state) {
    write(state, s.p.y, at, s.p.dtype, s.size);
  }
};

/// y -> scale * y + shift. `flag`: the products of x, which are the scales; else linear_scan.
template <class T>
struct Affine {
  using A = Arithmetic<T>;
  struct State {
    T scale, shift;
  };
  __device__ static State identity() { return {A::number(1), A::number(0)}; }
  __device__ static State load(const Source& s, int64_t at, int64_t position) {
    const T x = read<T>(s.p.x, at, s.p.dtype, s.size);
    if (s.flag) return {x, A::number(0)};
    return {position == 0 ? A::number(0) : read<T>(s.p.a, at, s.p.dtype, s.size), x};
  }
  __device__ static State merge(const Source&, State a, State b) {
    // Nothing to scale stays nothing, although the scale of a long run may be infinite.
    const T moved = A::is_zero(a.shift) ? a.shift : A::multiply(b.scale, a.shift);
    return {A::multiply(a.scale, b.scale), A::add(moved, b.shift)};
  }
  __device__ static void store(const Source& s, int64_t at, State state) {
    write(s.flag ? state.scale : state.shift, s.p.y, at, s.p.dtype, s.size);
  }
};

/// exp(max) * sum
struct LogSumExp {
  struct State {
    double max, sum;
  };
  static constexpr double kInfinity = std::numeric_limits<double>::infinity();
  __device__ static State identity() { return {-kInfinity, 0}; }
  __device__ static State load(const Source& s, int64_t at, int64_t) {
    const auto x = read<double>(s.p.x, at, s.p.dtype, s.size);
    return {x, x == -kInfinity ? 0.0 : 1.0};
  }
  __device__ static State merge(const Source&, State a, State b) { return merge_states(a, b); }
  __device__ static void store(const Source& s, int64_t at, State state) {
    const bool is_finite = state.max - state.max == 0;
    write(is_finite ? state.max + logarithm(state.sum) : state.max, s.p.y, at, s.p.dtype, s.size);
  }

 private:
  // Hundreds of instructions, which would be copied to every step of a scan.
  static __device__ OPSIN_NOINLINE double logarithm(double x) { return math::log(x); }
  static __device__ OPSIN_NOINLINE State merge_states(State a, State b) {
    if (a.max != a.max) return a;
    if (b.max != b.max) return b;
    const State high = a.max >= b.max ? a : b, low = a.max >= b.max ? b : a;
    // Equal maxima include infinite ones, whose difference is no number.
    const double weight = high.max == low.max ? 1.0 : math::exp(low.max - high.max);
    return {high.max, high.sum + low.sum * weight};
  }
};

/// The extreme value and its last position. `flag`: the largest, else the smallest.
template <class T>
struct Extremum {
  struct State {
    T value;
    int64_t position;  ///< -1 for no elements.
  };
  __device__ static State identity() { return {T(0), -1}; }
  __device__ static State load(const Source& s, int64_t at, int64_t position) {
    return {read<T>(s.p.x, at, s.p.dtype, s.size), position};
  }
  __device__ static State merge(const Source& s, State a, State b) {
    if (a.position < 0 || b.position < 0) return a.position < 0 ? b : a;
    const bool takes =
        b.value != b.value || (a.value == a.value && (s.flag ? b.value >= a.value : b.value <= a.value));
    return takes ? b : a;
  }
  __device__ static void store(const Source& s, int64_t at, State state) {
    write(state.value, s.p.y, at, s.p.dtype, s.size);
    s.p.positions[at] = state.position;
  }
};

}  // namespace opsin::scan

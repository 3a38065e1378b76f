// Pooling on a GPU, channels last. Gradients are gathered by input pixel from the windows that may cover it,
// so nothing is added by two threads and sums have one order.
#include "pool_any_cuda.h"
#include "pool_kernels.h"
#include "pool_windows_cuda.h"

#include <limits>

#include <opsin/error.h>

namespace opsin {

namespace {

using cuda::Divider;
using pool::kThreads;
using pool::PoolArgs;
using pool::Value;

int64_t image_elements(const PoolParams& p, const int64_t (&size)[3]) {
  return size[0] * size[1] * size[2] * p.geometry.channels;
}

/// Calls run(first image, images, elements of x before it, elements of y before it) for as many images at a
/// time as have elements that 32 bits can number.
template <class F>
void for_images(const PoolParams& p, F&& run) {
  const int64_t in = image_elements(p, p.geometry.in), out = image_elements(p, p.geometry.out);
  const int64_t each = std::max(in, out);
  OPSIN_CHECK(ShapeError, each <= INT32_MAX, "pool: expected at most 2^31 elements per image on a GPU, got ",
              each);
  const int64_t most = INT32_MAX / each;
  for (int64_t image = 0; image < p.geometry.batch; image += most) {
    run(std::min(most, p.geometry.batch - image), image * in, image * out);
  }
}

unsigned blocks_of(uint32_t threads) { return (threads + kThreads - 1) / kThreads; }

/// `width` channels go to a thread and `size` is the side that threads are numbered by.
PoolArgs args_of(const PoolParams& p, DType dtype, int width, const int64_t (&size)[3], int64_t images) {
  const cpu::PoolGeometry& g = p.geometry;
  PoolArgs a{};
  for (int axis = 0; axis < 3; ++axis) {
    OPSIN_CHECK(ShapeError, g.in[axis] <= INT32_MAX / 2 && g.out[axis] <= INT32_MAX / 2,
                "pool: expected at most 2^30 positions per axis on a GPU, got ", g.in[axis], " and ",
                g.out[axis]);
    a.in[axis] = static_cast<int>(g.in[axis]);
    a.out[axis] = static_cast<int>(g.out[axis]);
    a.kernel[axis] = static_cast<int>(g.kernel[axis]);
    a.stride[axis] = static_cast<int>(g.stride[axis]);
    a.dilation[axis] = static_cast<int>(g.dilation[axis]);
    a.pad_begin[axis] = static_cast<int>(g.pad_begin[axis]);
    a.pad_end[axis] = static_cast<int>(g.pad_end[axis]);
    a.pixels[axis] = Divider(static_cast<uint32_t>(size[axis]));
  }
  a.channels = static_cast<int>(g.channels);
  a.adaptive = g.adaptive;
  a.count_include_pad = p.count_include_pad;
  a.divisor = p.divisor_override;
  a.dtype = dtype;
  a.groups = Divider(static_cast<uint32_t>(g.channels / width));
  a.threads = static_cast<uint32_t>(images * image_elements(p, size) / width);
  return a;
}

/// Calls body.operator()<V>() for the neighbouring channels that a thread takes.
template <class S, class F>
void with_width(bool wide, F&& body) {
  if constexpr (sizeof(S) < 8) {
    if (wide) return body.template operator()<cuda::kVector<S>>();
  }
  body.template operator()<1>();
}

/// Calls body.operator()<K, S>() for two-dimensional windows that there are kernels for; whether it did.
template <class F>
bool with_window(const cpu::PoolGeometry& g, F&& body) {
  const auto is = [&](int axis, int64_t kernel, int64_t stride) {
    return g.kernel[axis] == kernel && g.stride[axis] == stride && g.dilation[axis] == 1;
  };
  if (g.adaptive || g.in[0] != 1 || g.out[0] != 1 || g.kernel[0] != 1) return false;
  if (is(1, 3, 2) && is(2, 3, 2)) {
    body.template operator()<3, 2>();
  } else if (is(1, 2, 2) && is(2, 2, 2)) {
    body.template operator()<2, 2>();
  } else {
    return false;
  }
  return true;
}

/// Calls body.operator()<kStored>() for S, of which float16 and bfloat16 are both uint16_t.
template <class S, class F>
void with_stored(DType dtype, F&& body) {
  if constexpr (std::is_same_v<S, float>) {
    body.template operator()<kFloat32>();
  } else if (dtype == kFloat16) {
    body.template operator()<kFloat16>();
  } else {
    body.template operator()<kBFloat16>();
  }
}

/// `rows` and `columns`: of threads per image and channel group.
pool::WindowArgs window_args(const PoolParams& p, int width, int64_t images, int64_t rows, int64_t columns) {
  const cpu::PoolGeometry& g = p.geometry;
  pool::WindowArgs a{};
  for (int axis = 0; axis < 2; ++axis) {
    a.in[axis] = static_cast<int>(g.in[1 + axis]);
    a.out[axis] = static_cast<int>(g.out[1 + axis]);
    a.pad[axis] = static_cast<int>(g.pad_begin[1 + axis]);
    a.margin[axis] = p.count_include_pad ? static_cast<int>(g.pad_end[1 + axis]) : 0;
  }
  a.channels = static_cast<int>(g.channels);
  a.count_include_pad = p.count_include_pad;
  a.divisor = static_cast<float>(p.divisor_override);
  const int64_t groups = g.channels / width;
  a.groups = Divider(static_cast<uint32_t>(groups));
  a.columns = Divider(static_cast<uint32_t>(columns));
  a.strips = Divider(static_cast<uint32_t>(rows));
  a.threads = static_cast<uint32_t>(images * rows * columns * groups);
  return a;
}

template <class Fold, int K, int S>
void launch_forward(const PoolParams& p, const void* x, void* y, uint8_t* taps) {
  using Stored = pool::StoredAs<Fold::kStored>;
  // Windows that overlap share what they read in the registers of a thread.
  constexpr int kRows = K > S && !Fold::kMean ? 2 : 1;
  for_images(p, [&](int64_t images, int64_t from, int64_t to) {
    const int64_t(&out)[3] = p.geometry.out;
    const auto a = window_args(p, cuda::kVector<Stored>, images, (out[1] + kRows - 1) / kRows, out[2]);
    OPSIN_LAUNCH((pool::window_forward<Fold, K, S, kRows>), blocks_of(a.threads), kThreads, 0, a,
                 static_cast<const Stored*>(x) + from, static_cast<Stored*>(y) + to,
                 taps ? taps + to : nullptr);
  });
}

template <DType kStored, int K, int S, bool kTaps>
void launch_backward(const PoolParams& p, const void* grad_y, const uint8_t* taps, void* grad_x) {
  using Stored = pool::StoredAs<kStored>;
  for_images(p, [&](int64_t images, int64_t to, int64_t from) {
    const cpu::PoolGeometry& g = p.geometry;
    const auto patches = [&](int axis) { return (g.in[axis] + g.pad_begin[axis] + S - 1) / S; };
    const auto a = window_args(p, cuda::kVector<Stored>, images, patches(1), patches(2));
    OPSIN_LAUNCH((pool::window_backward<kStored, K, S, 1, kTaps>), blocks_of(a.threads), kThreads, 0, a,
                 static_cast<const Stored*>(grad_y) + from, taps ? taps + from : nullptr,
                 static_cast<Stored*>(grad_x) + to);
  });
}

template <class S>
Value<S> lowest_of(DType dtype) {
  if constexpr (std::is_same_v<S, int64_t>) {
    return dtype == kUInt8 ? 0 : static_cast<int64_t>(~uint64_t{0} << (8 * item_size(dtype) - 1));
  } else {
    return -std::numeric_limits<Value<S>>::infinity();
  }
}

template <class T>
T* at(T* data, int64_t elements) {
  return data ? data + elements : nullptr;
}
PoolPositions at(PoolPositions positions, int64_t elements) {
  return {at(positions.indices, elements), at(positions.taps, elements)};
}
const void* at(const void* data, int64_t elements, DType dtype) {
  return static_cast<const char*>(data) + elements * static_cast<int64_t>(item_size(dtype));
}
void* at(void* data, int64_t elements, DType dtype) {
  return static_cast<char*>(data) + elements * static_cast<int64_t>(item_size(dtype));
}

/// The kernels for elements stored as S.
template <class S>
struct Pool {
  static constexpr bool kVectors = sizeof(S) < 8;

  /// Calls body.operator()<kStored, K, S>() where there is a kernel for the windows; whether it did.
  template <class F>
  static bool with_fixed(const PoolParams& p, DType dtype, bool wide, F&& body) {
    if constexpr (kVectors) {
      return wide && with_window(p.geometry, [&]<int K, int kStride>() {
               with_stored<S>(dtype,
                              [&]<DType kStored>() { body.template operator()<kStored, K, kStride>(); });
             });
    }
    return false;
  }

  static void max_forward(const PoolParams& p, DType dtype, const void* x, void* y, PoolPositions positions) {
    const bool wide = cuda::fits_vectors<S>(p.geometry.channels, x, y);
    const auto fixed = [&]<DType kStored, int K, int kStride>() {
      if (positions.taps)
        return launch_forward<pool::LargestAt<kStored>, K, kStride>(p, x, y, positions.taps);
      launch_forward<pool::Largest<kStored>, K, kStride>(p, x, y, nullptr);
    };
    if (!positions.indices && with_fixed(p, dtype, wide, fixed)) return;
    with_width<S>(wide, [&]<int V>() {
      for_images(p, [&](int64_t images, int64_t from, int64_t to) {
        const PoolArgs a = args_of(p, dtype, V, p.geometry.out, images);
        OPSIN_LAUNCH((pool::max_forward<S, V>), blocks_of(a.threads), kThreads, 0, a, lowest_of<S>(dtype),
                     at(x, from, dtype), at(y, to, dtype), at(positions, to));
      });
    });
  }
  static void max_backward(const PoolParams& p, DType dtype, const void* grad_y, PoolPositions positions,
                           void* grad_x) {
    const bool wide = cuda::fits_vectors<S>(p.geometry.channels, grad_y, grad_x);
    const auto fixed = [&]<DType kStored, int K, int kStride>() {
      launch_backward<kStored, K, kStride, true>(p, grad_y, positions.taps, grad_x);
    };
    if (positions.taps && with_fixed(p, dtype, wide, fixed)) return;
    with_width<S>(wide, [&]<int V>() {
      for_images(p, [&](int64_t images, int64_t to, int64_t from) {
        const PoolArgs a = args_of(p, dtype, V, p.geometry.in, images);
        OPSIN_LAUNCH((pool::max_backward<S, V>), blocks_of(a.threads), kThreads, 0, a,
                     at(grad_y, from, dtype), at(positions, from), at(grad_x, to, dtype));
      });
    });
  }
  static void max_gather(const PoolParams& p, DType dtype, const void* x, PoolPositions positions, void* y) {
    for_images(p, [&](int64_t images, int64_t from, int64_t to) {
      const PoolArgs a = args_of(p, dtype, 1, p.geometry.out, images);
      OPSIN_LAUNCH(pool::max_gather<S>, blocks_of(a.threads), kThreads, 0, a, at(x, from, dtype),
                   at(positions, to), at(y, to, dtype));
    });
  }
  static void avg_forward(const PoolParams& p, DType dtype, const void* x, void* y) {
    const bool wide = cuda::fits_vectors<S>(p.geometry.channels, x, y);
    const auto fixed = [&]<DType kStored, int K, int kStride>() {
      launch_forward<pool::Mean<kStored>, K, kStride>(p, x, y, nullptr);
    };
    if (with_fixed(p, dtype, wide, fixed)) return;
    with_width<S>(wide, [&]<int V>() {
      for_images(p, [&](int64_t images, int64_t from, int64_t to) {
        const PoolArgs a = args_of(p, dtype, V, p.geometry.out, images);
        OPSIN_LAUNCH((pool::avg_forward<S, V>), blocks_of(a.threads), kThreads, 0, a, at(x, from, dtype),
                     at(y, to, dtype));
      });
    });
  }
  static void avg_backward(const PoolParams& p, DType dtype, const void* grad_y, void* grad_x) {
    const bool wide = cuda::fits_vectors<S>(p.geometry.channels, grad_y, grad_x);
    const auto fixed = [&]<DType kStored, int K, int kStride>() {
      launch_backward<kStored, K, kStride, false>(p, grad_y, nullptr, grad_x);
    };
    if (with_fixed(p, dtype, wide, fixed)) return;
    with_width<S>(wide, [&]<int V>() {
      for_images(p, [&](int64_t images, int64_t to, int64_t from) {
        const PoolArgs a = args_of(p, dtype, V, p.geometry.in, images);
        OPSIN_LAUNCH((pool::avg_backward<S, V>), blocks_of(a.threads), kThreads, 0, a,
                     at(grad_y, from, dtype), at(grad_x, to, dtype));
      });
    });
  }
};

template <class S>
void fill(DType dtype) {
  constexpr DeviceType kDevice = DeviceType::kCUDA;
  max_pool_forward.set(kDevice, dtype, Pool<S>::max_forward);
  if constexpr (!std::is_same_v<S, int64_t>) {
    max_pool_backward.set(kDevice, dtype, Pool<S>::max_backward);
    max_pool_gather.set(kDevice, dtype, Pool<S>::max_gather);
    avg_pool_forward.set(kDevice, dtype, Pool<S>::avg_forward);
    avg_pool_backward.set(kDevice, dtype, Pool<S>::avg_backward);
  }
}

}  // namespace

void register_pool_cuda();

void register_pool_cuda() {
  for (const DType dtype : {kFloat16, kBFloat16, kFloat32, kFloat64}) {
    cuda::dispatch_stored(dtype, [&]<class S>() { fill<S>(dtype); });
  }
  for (const DType dtype : {kUInt8, kInt8, kInt16, kInt32, kInt64}) fill<int64_t>(dtype);
}

}  // namespace opsin

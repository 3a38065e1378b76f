// Multi-scale deformable attention on the CPU: the points of a query and head are a list of rows with
// weights.
#include "ms_deform_attn_kernels.h"
#include "ops/roi/tap_kernels.h"

#include <algorithm>
#include <vector>

#include "cpu/thread_pool.h"

namespace opsin {

namespace {

const cpu::TapTable& table() { return OPSIN_ISA_SELECT(cpu::tap_table); }
template <class T>
constexpr size_t index_of(T i) {
  return static_cast<size_t>(i);
}
int64_t item_of(const MsDeformAttnParams& p) { return static_cast<int64_t>(item_size(p.dtype)); }

/// The corners of all points of a row (image, query, head).
template <class T>
struct Rows {
  std::vector<int64_t> at;
  std::vector<T> weights;

  void set(const MsDeformAttnParams& p, int64_t row) {
    at.clear();
    weights.clear();
    const T* const attention = static_cast<const T*>(p.weights) + row * p.samples();
    const int64_t image = row / p.heads / p.queries, head = row % p.heads;
    for (int64_t sample = 0; sample < p.samples(); ++sample) {
      const AttentionCell<T> cell(p, row, sample / p.points, sample);
      if (!cell.inside) continue;
      for (int corner = 0; corner < 1 << p.axes; ++corner) {
        const int64_t pixel = cell.pixel(corner);
        if (pixel < 0) continue;
        at.push_back(((image * p.length + pixel) * p.heads + head) * p.channels);
        weights.push_back(cell.weight(corner) * attention[sample]);
      }
    }
  }
  cpu::TapParams params(const MsDeformAttnParams& p, const void* x) const {
    return {x, at.data(), weights.data(), static_cast<int64_t>(at.size()), p.channels};
  }
};

template <class T>
void forward(const MsDeformAttnParams& p, const void* value, void* y) {
  cpu::parallel_for(p.images * p.queries, 8, [&](int64_t begin, int64_t end) {
    Rows<T> rows;
    for (int64_t row = begin * p.heads; row < end * p.heads; ++row) {
      rows.set(p, row);
      table().gather[index_of(p.dtype)](rows.params(p, value),
                                        static_cast<char*>(y) + row * p.channels * item_of(p));
    }
  });
}

/// Each head of each image has memory of its own.
template <class T>
void backward_value(const MsDeformAttnParams& p, const void* g, void* grad_value) {
  cpu::parallel_for(p.images * p.length, 256, [&](int64_t begin, int64_t end) {
    const int64_t row = p.heads * p.channels;
    std::fill(static_cast<T*>(grad_value) + begin * row, static_cast<T*>(grad_value) + end * row, T(0));
  });
  cpu::parallel_for(p.images * p.heads, 1, [&](int64_t begin, int64_t end) {
    Rows<T> rows;
    for (int64_t task = begin; task < end; ++task) {
      const int64_t image = task / p.heads, head = task % p.heads;
      for (int64_t query = 0; query < p.queries; ++query) {
        const int64_t row = (image * p.queries + query) * p.heads + head;
        rows.set(p, row);
        const auto* from = static_cast<const char*>(g) + row * p.channels * item_of(p);
        table().spread[index_of(p.dtype)](rows.params(p, from), grad_value);
      }
    }
  });
}

template <class T>
void backward_points(const MsDeformAttnParams& p, const void* value, const void* g, void* grad_locations,
                     void* grad_weights) {
  cpu::parallel_for(p.images * p.queries, 8, [&](int64_t begin, int64_t end) {
    Rows<T> rows;
    std::vector<T> products;
    for (int64_t row = begin * p.heads; row < end * p.heads; ++row) {
      rows.set(p, row);
      products.resize(rows.at.size());
      table().products[index_of(p.dtype)](rows.params(p, value),
                                          static_cast<const char*>(g) + row * p.channels * item_of(p),
                                          products.data());
      const T* next = products.data();
      for (int64_t sample = 0; sample < p.samples(); ++sample) {
        const int64_t i = row * p.samples() + sample;
        const AttentionCell<T> cell(p, row, sample / p.points, sample);
        T of_weight = T(0), slopes[3] = {};
        for (int corner = 0; cell.inside && corner < 1 << p.axes; ++corner) {
          if (cell.pixel(corner) < 0) continue;
          const T product = *next++;
          of_weight += product * cell.weight(corner);
          for (int a = 3 - p.axes; a < 3; ++a) {
            slopes[a] += (corner >> (2 - a) & 1 ? product : -product) * cell.weight(corner, a);
          }
        }
        static_cast<T*>(grad_weights)[i] = of_weight;
        const T attention = static_cast<const T*>(p.weights)[i];
        for (int a = 3 - p.axes; a < 3; ++a) {
          static_cast<T*>(grad_locations)[i * p.axes + 2 - a] =
              slopes[a] * attention * static_cast<T>(cell.size[a]);
        }
      }
    }
  });
}

}  // namespace

void register_ms_deform_attn_cpu() {
  for (const DType dtype : {kFloat16, kBFloat16, kFloat32, kFloat64}) {
    const bool wide = dtype == kFloat64;
    ms_deform_attn_forward.set(DeviceType::kCPU, dtype, wide ? forward<double> : forward<float>);
    ms_deform_attn_backward_value.set(DeviceType::kCPU, dtype,
                                      wide ? backward_value<double> : backward_value<float>);
    ms_deform_attn_backward_points.set(DeviceType::kCPU, dtype,
                                       wide ? backward_points<double> : backward_points<float>);
  }
}

}  // namespace opsin

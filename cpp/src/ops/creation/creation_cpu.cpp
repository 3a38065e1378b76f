#include "creation_math.h"

#include <algorithm>
#include <cmath>

#include <opsin/scalar.h>

#include "core/dispatch.h"
#include "cpu/thread_pool.h"

namespace opsin {

namespace {

/// out[i] = f(i), written by several threads.
template <class F>
void generate(const RangeParams& p, F f) {
  dispatch_real(p.dtype, "range", [&]<class T>() {
    T* data = static_cast<T*>(p.out);
    cpu::parallel_for(p.count, 32768, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) data[i] = Scalar(f(i)).template to<T>();
    });
  });
}

void fill_range(const RangeParams& p) {
  using Kind = RangeParams::Kind;
  const auto product = [](double a, double b) { return a * b; };
  switch (p.kind) {
    case Kind::kIntegers:
      return generate(p, [a = p.first, s = p.step](int64_t i) { return a + i * s; });
    case Kind::kPowers:
      return generate(p, [=](int64_t i) { return std::pow(p.base, real_of(p, i, product)); });
    default:
      return generate(p, [=](int64_t i) { return real_of(p, i, product); });
  }
}

void fill_triangle(const TriangleParams& p) {
  int64_t* row_of = p.out;
  int64_t* col_of = p.out + p.count;
  // From the first row that has positions to the last: there may be very many without.
  for (int64_t i = p.upper ? 0 : std::max<int64_t>(0, -p.offset); col_of < p.out + 2 * p.count; ++i) {
    const ColumnRange columns = triangle_columns(p, i);
    for (int64_t j = columns.first; j < columns.last; ++j) {
      *row_of++ = i;
      *col_of++ = j;
    }
  }
}

}  // namespace

void register_creation_cpu() {
  for (int i = 0; i < kNumDTypes; ++i) {
    const auto dtype = static_cast<DType>(i);
    if (!is_complex(dtype)) range_forward.set(DeviceType::kCPU, dtype, fill_range);
  }
  triangle_forward.set(DeviceType::kCPU, kInt64, fill_triangle);
}

}  // namespace opsin

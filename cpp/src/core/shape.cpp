#include <algorithm>

#include <opsin/error.h>
#include <opsin/shape.h>

namespace opsin {

int64_t count_elements(IntSpan sizes, const char* op) {
  int64_t count = 1;
  bool zero = false;
  bool overflow = false;
  for (const int64_t size : sizes) {
    OPSIN_CHECK(ShapeError, size >= 0, op, ": expected non-negative sizes, got ", str(sizes));
    zero |= size == 0;
    overflow |= __builtin_mul_overflow(count, size == 0 ? 1 : size, &count);
  }
  OPSIN_CHECK(ShapeError, !overflow, op, ": the number of elements of ", str(sizes), " overflows 64 bits");
  return zero ? 0 : count;
}

Dims contiguous_strides(IntSpan sizes) {
  Dims strides(sizes.size());
  int64_t stride = 1;
  for (size_t i = sizes.size(); i-- > 0;) {
    strides[i] = stride;
    stride *= std::max<int64_t>(sizes[i], 1);
  }
  return strides;
}

bool is_dense(IntSpan sizes, IntSpan strides) {
  Dims order(sizes.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int64_t>(i);
  std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    return strides[static_cast<size_t>(a)] < strides[static_cast<size_t>(b)];
  });
  int64_t expected = 1;
  for (const int64_t i : order) {
    const auto d = static_cast<size_t>(i);
    if (sizes[d] == 1) continue;
    if (strides[d] != expected) return false;
    expected *= sizes[d];
  }
  return true;
}

Dims broadcast_shapes(IntSpan a, IntSpan b, const char* op) {
  const size_t rank = std::max(a.size(), b.size());
  Dims result(rank);
  for (size_t i = 0; i < rank; ++i) {
    const int64_t size_a = i + a.size() < rank ? 1 : a[i + a.size() - rank];
    const int64_t size_b = i + b.size() < rank ? 1 : b[i + b.size() - rank];
    OPSIN_CHECK(ShapeError, size_a == size_b || size_a == 1 || size_b == 1, op,
                ": expected shapes that broadcast, got ", str(a), " and ", str(b), " (sizes ", size_a,
                " and ", size_b, " meet at dimension ", i, "; one of them must be 1 or both equal)");
    result[i] = size_a == 1 ? size_b : size_a;
  }
  return result;
}

int64_t wrap_dim(int64_t dim, int64_t rank, const char* op) {
  const int64_t limit = std::max<int64_t>(rank, 1);
  OPSIN_CHECK(IndexError, dim >= -limit && dim < limit, op, ": expected dim in [", -limit, ", ", limit - 1,
              "], got ", dim, " (Dimension out of range)");
  return dim < 0 ? dim + limit : dim;
}

Dims per_axis(IntSpan values, size_t axes, int64_t missing, int64_t least, const char* op, const char* what) {
  OPSIN_CHECK(ShapeError, values.size() <= 1 || values.size() == axes, op, ": expected ", what,
              " to have 1 or ", axes, " entries, got ", str(values));
  Dims result(axes, values.empty() ? missing : values[0]);
  for (size_t i = 0; i < values.size() && values.size() == axes; ++i) result[i] = values[i];
  for (const int64_t value : result) {
    OPSIN_CHECK(ShapeError, value >= least, op, ": expected ", what, " of at least ", least, ", got ",
                str(result));
  }
  return result;
}

std::string str(IntSpan sizes) {
  std::string text = "[";
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (i) text += ", ";
    text += std::to_string(sizes[i]);
  }
  return text + "]";
}

}  // namespace opsin

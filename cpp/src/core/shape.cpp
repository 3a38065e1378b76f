#include <opsin/error.h>
#include <opsin/shape.h>

namespace opsin {

int64_t count_elements(IntSpan sizes) {
  int64_t count = 1;
  bool zero = false;
  bool overflow = false;
  for (const int64_t size : sizes) {
    OPSIN_CHECK(ShapeError, size >= 0, "size: expected non-negative sizes, got ", str(sizes));
    zero |= size == 0;
    overflow |= __builtin_mul_overflow(count, size == 0 ? 1 : size, &count);
  }
  OPSIN_CHECK(ShapeError, !overflow, "size: the number of elements of ", str(sizes), " overflows 64 bits");
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

std::string str(IntSpan sizes) {
  std::string text = "[";
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (i) text += ", ";
    text += std::to_string(sizes[i]);
  }
  return text + "]";
}

}  // namespace opsin

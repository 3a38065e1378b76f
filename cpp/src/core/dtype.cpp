#include <atomic>

#include <opsin/dtype.h>
#include <opsin/error.h>

namespace opsin {

DType promote_types(DType a, DType b) {
  if (a == b) return a;
  if (a > b) std::swap(a, b);
  if (is_complex(b)) {
    return b == kComplex128 || a == kFloat64 ? kComplex128 : kComplex64;
  }
  if (is_floating_point(b)) return a == kFloat16 && b == kBFloat16 ? kFloat32 : b;
  // uint8 and a signed type meet in the next wider signed type.
  if (a == kUInt8 && b == kInt8) return kInt16;
  return b;
}

bool can_cast(DType from, DType to) {
  if (is_complex(from) && !is_complex(to)) return false;
  if (is_floating_point(from) && is_integral(to)) return false;
  return from == kBool || to != kBool;
}

namespace {
std::atomic<DType>& default_dtype_flag() {
  static std::atomic<DType> dtype{kFloat32};
  return dtype;
}
}  // namespace

DType default_dtype() { return default_dtype_flag().load(std::memory_order_relaxed); }

void set_default_dtype(DType dtype) {
  OPSIN_CHECK(TypeError, is_floating_point(dtype), "set_default_dtype: expected a floating-point dtype, got ",
              name(dtype));
  default_dtype_flag().store(dtype, std::memory_order_relaxed);
}

}  // namespace opsin

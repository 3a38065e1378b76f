#include "core/promotion.h"

#include <optional>

namespace opsin {

namespace {

int category(DType dtype) {
  return dtype == kBool ? 0 : is_integral(dtype) ? 1 : is_floating_point(dtype) ? 2 : 3;
}

/// What a plain number stands for: reals are stored wide, but count as the default dtype.
DType number_type(DType dtype) {
  if (is_complex(dtype)) return default_dtype() == kFloat64 ? kComplex128 : kComplex64;
  return is_floating_point(dtype) ? default_dtype() : dtype;
}

class Promotion {
 public:
  void add(const Tensor& tensor) {
    if (!tensor.defined()) return;
    const bool number = tensor.impl()->wrapped_number;
    const DType dtype = number ? number_type(tensor.dtype()) : tensor.dtype();
    auto& slot = number ? number_ : tensor.dim() == 0 ? zero_dim_ : dimensioned_;
    slot = slot ? promote_types(*slot, dtype) : dtype;
  }

  DType result() const { return merge(merge(dimensioned_, zero_dim_), number_).value_or(default_dtype()); }

 private:
  static std::optional<DType> merge(std::optional<DType> high, std::optional<DType> low) {
    if (!high) return low;
    if (!low || category(*low) <= category(*high)) return high;
    // A plain number or 0-d tensor of a higher category brings its own dtype; complex follows the float
    // width.
    return category(*low) == 3 && is_floating_point(*high) ? promote_types(*high, kComplex64) : *low;
  }

  std::optional<DType> dimensioned_, zero_dim_, number_;
};

}  // namespace

DType result_type(std::initializer_list<const Tensor*> tensors) {
  Promotion promotion;
  for (const Tensor* tensor : tensors) promotion.add(*tensor);
  return promotion.result();
}

DType result_type(TensorSpan tensors) {
  Promotion promotion;
  for (const Tensor& tensor : tensors) promotion.add(tensor);
  return promotion.result();
}

}  // namespace opsin

// Questions about whole tensors.
#pragma once

#include <opsin/tensor.h>

namespace opsin {

/// Whether both have the same shape and values.
OPSIN_API bool equal(const Tensor& self, const Tensor& other);
/// Whether |self - other| <= atol + rtol * |other| everywhere, NaN equal to NaN if `equal_nan`.
OPSIN_API bool allclose(const Tensor& self, const Tensor& other, double rtol = 1e-5, double atol = 1e-8,
                        bool equal_nan = false);
/// For each element, whether `test_elements` holds it; the opposite with `invert`.
OPSIN_API Tensor isin(const Tensor& elements, const Tensor& test_elements, bool assume_unique = false,
                      bool invert = false);

}  // namespace opsin

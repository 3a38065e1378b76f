#include "core/channels_last.h"

#include <opsin/autograd.h>
#include <opsin/ops/copy.h>

#include "core/relayout.h"

namespace opsin {

Tensor to_channels_last(const Tensor& x) {
  const TensorImpl* impl = x.impl();
  if (impl->is_hidden() || x.numel() == 0) return x;
  if (impl->contiguous && is_same_order(impl->sizes)) return x;
  const Dims dense = channels_last_strides(impl->sizes);
  bool matches = true;
  for (size_t i = 0; i < dense.size(); ++i) matches &= impl->sizes[i] == 1 || impl->strides[i] == dense[i];
  if (matches) return x;
  const NoGradGuard no_grad;
  const Tensor y = empty_channels_last(impl->sizes, impl->dtype, x.device());
  if (impl->contiguous) {
    relay_to_channels_last(impl->physical_data(), y.impl()->mutable_physical_data(), impl->sizes,
                           item_size(impl->dtype), x.device());
  } else {
    copy_(y, x.detach());
  }
  return y;
}

}  // namespace opsin

#include "autograd/saved.h"

#include "autograd/history.h"

namespace opsin {

SavedTensor::SavedTensor(const Tensor& tensor, bool is_output) {
  if (!tensor.defined()) return;
  OPSIN_CHECK(Error, !tensor.is_inference(),
              "Inference tensors cannot be saved for backward, got one of shape ", str(tensor.sizes()),
              " (make a clone() to get a normal tensor and use it in autograd, or use no_grad() instead of "
              "inference_mode())");
  is_output_ = is_output && tensor.requires_grad();
  version_ = tensor.version();
  if (is_output_) {
    output_nr_ = tensor.output_nr();
    tensor_ = alias_without_history(tensor);
  } else {
    tensor_ = tensor;
  }
}

Tensor SavedTensor::unpack(Node* owner) const {
  if (!tensor_.defined()) return {};
  OPSIN_CHECK(
      Error, tensor_.version() == version_,
      "one of the variables needed for gradient computation has been modified by an inplace operation: [",
      name(tensor_.dtype()), " ", str(tensor_.sizes()), "], saved for the backward of ", owner->name(),
      ", is at version ", tensor_.version(), "; expected version ", version_,
      " instead (clone it before the in-place change)");
  if (!is_output_) return tensor_;
  Tensor output = alias_without_history(tensor_);
  AutogradMeta& meta = autograd_meta(output);
  meta.grad_fn = Ref<Node>::share(owner);
  meta.output_nr = output_nr_;
  meta.requires_grad = true;
  return output;
}

}  // namespace opsin

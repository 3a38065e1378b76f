#include "autograd/saved.h"

#include "autograd/history.h"
#include "core/tail.h"

namespace opsin {

SavedTensor::SavedTensor(const Tensor& tensor, bool is_output) {
  if (!tensor.defined()) return;
  OPSIN_CHECK(Error, !tensor.is_inference(),
              "Inference tensors cannot be saved for backward, got one of shape ", str(tensor.sizes()),
              " (make a clone() to get a normal tensor and use it in autograd, or use no_grad() instead of "
              "inference_mode())");
  version_ = tensor.version();
  const bool repeatable = Tails::is_repeatable(tensor);
  if (is_output && tensor.requires_grad()) {
    kind_ = Kind::kOutput;
  } else if (repeatable &&
             (!tensor.requires_grad() || (tensor.grad_fn() && !tensor.impl()->autograd->base))) {
    kind_ = Kind::kMemory;
    grad_fn_ = tensor.grad_fn();
  } else {
    tensor_ = tensor;
    return;
  }
  output_nr_ = tensor.output_nr();
  tensor_ = alias_without_history(tensor);
  is_held_ = repeatable;
  if (is_held_) Tails::hold(tensor_);
}

SavedTensor::~SavedTensor() {
  if (is_held_) Tails::release(tensor_);
}

void SavedTensor::swap(SavedTensor& other) noexcept {
  std::swap(tensor_, other.tensor_);
  grad_fn_.swap(other.grad_fn_);
  std::swap(version_, other.version_);
  std::swap(output_nr_, other.output_nr_);
  std::swap(kind_, other.kind_);
  std::swap(is_held_, other.is_held_);
}

Tensor SavedTensor::unpack(Node* owner) const {
  if (!tensor_.defined()) return {};
  OPSIN_CHECK(
      Error, tensor_.version() == version_,
      "one of the variables needed for gradient computation has been modified by an inplace operation: [",
      name(tensor_.dtype()), " ", str(tensor_.sizes()), "], saved for the backward of ", owner->name(),
      ", is at version ", tensor_.version(), "; expected version ", version_,
      " instead (clone it before the in-place change)");
  if (kind_ == Kind::kTensor) return tensor_;
  Tensor unpacked;
  {
    // Another thread may be about to give up the memory.
    std::optional<Tails::Lock> lock;
    if (is_held_) lock.emplace();
    unpacked = alias_without_history(tensor_);
  }
  Ref<Node> maker = kind_ == Kind::kOutput ? Ref<Node>::share(owner) : grad_fn_;
  if (maker) {
    AutogradMeta& meta = autograd_meta(unpacked);
    meta.grad_fn = std::move(maker);
    meta.output_nr = output_nr_;
    meta.requires_grad = true;
  }
  return unpacked;
}

}  // namespace opsin

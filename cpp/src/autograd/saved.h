// Tensors kept for the backward rule, with the checks that make a stale one an error.
#pragma once

#include <opsin/autograd.h>

namespace opsin {

class SavedTensor {
 public:
  SavedTensor() = default;
  /// `is_output`: the tensor is an output of the node that keeps it, so only its memory is held (a reference
  /// to the tensor itself would be a cycle).
  SavedTensor(const Tensor& tensor, bool is_output);
  /// The tensor, with its history. `owner` is the node that keeps it. Raises when it was modified in place.
  Tensor unpack(Node* owner) const;

 private:
  Tensor tensor_;
  uint32_t version_ = 0;
  uint32_t output_nr_ = 0;
  bool is_output_ = false;
};

}  // namespace opsin

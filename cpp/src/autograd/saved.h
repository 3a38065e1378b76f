// Tensors kept for the backward rule, with the checks that make a stale one an error.
#pragma once

#include <utility>

#include <opsin/autograd.h>

namespace opsin {

class SavedTensor {
 public:
  SavedTensor() = default;
  /// `is_output`: the tensor is an output of the node that keeps it, so only its memory is held (a reference
  /// to the tensor itself would be a cycle). What can be computed again has no memory while only saved
  /// tensors want it (core/tail.h).
  SavedTensor(const Tensor& tensor, bool is_output);
  SavedTensor(SavedTensor&& other) noexcept { swap(other); }
  SavedTensor& operator=(SavedTensor&& other) noexcept {
    SavedTensor(std::move(other)).swap(*this);
    return *this;
  }
  ~SavedTensor();
  /// The tensor, with its history. `owner` is the node that keeps it. Raises when it was modified in place.
  Tensor unpack(Node* owner) const;

 private:
  /// What `tensor_` stands for.
  enum class Kind : uint8_t {
    kTensor,  ///< The tensor that was saved.
    kMemory,  ///< Its memory alone.
    kOutput,  ///< Likewise, of an output of the node.
  };

  void swap(SavedTensor& other) noexcept;

  Tensor tensor_;
  Ref<Node> grad_fn_;  ///< Of a tensor of which the memory alone is kept.
  uint32_t version_ = 0;
  uint32_t output_nr_ = 0;
  Kind kind_ = Kind::kTensor;
  bool is_held_ = false;
};

}  // namespace opsin

// How a call is recorded: edges to the inputs, history of the outputs, views and in-place changes.
#pragma once

#include <array>

#include <opsin/autograd.h>
#include <opsin/ops/copy.h>

#include "autograd/saved.h"

namespace opsin {

// From the op catalogue; the machinery here needs these few.
OPSIN_API Tensor add(const Tensor& self, const Tensor& other, const Scalar& alpha);
OPSIN_API Tensor add_(const Tensor& self, const Tensor& other, const Scalar& alpha);
OPSIN_API Tensor zeros(IntSpan sizes, DType dtype, Device device);
OPSIN_API Tensor ones(IntSpan sizes, DType dtype, Device device);
OPSIN_API Tensor as_strided(const Tensor& self, IntSpan size, IntSpan stride,
                            std::optional<int64_t> storage_offset);
OPSIN_API Tensor sum_to_size(const Tensor& self, IntSpan size);
/// The node of an `as_strided` call that made `view` from its base.
Ref<Node> make_as_strided_node(const Tensor& base, const Tensor& view);

/// The autograd state of a tensor, made on first use.
inline AutogradMeta& autograd_meta(const Tensor& tensor) {
  auto& meta = tensor.impl()->autograd;
  if (!meta) meta = std::make_unique<AutogradMeta>();
  return *meta;
}

/// A tensor of the same memory and geometry with no history.
Tensor alias_without_history(const Tensor& tensor);
/// Where the gradient of `tensor` goes; an empty edge if it needs none.
Edge gradient_edge(const Tensor& tensor);
/// Makes output `output_nr` of `node` the maker of the tensor that `meta` belongs to; a retained gradient is
/// the one of the newest value.
void set_maker(AutogradMeta& meta, Ref<Node> node, uint32_t output_nr);
/// Makes `node` the maker of `output`, as its next output.
void set_history(const Tensor& output, const Ref<Node>& node);
/// Makes `view` (same storage) share the in-place history of `source`.
void set_view(const Tensor& view, const Tensor& source);
/// Raises if elements of `tensor` share memory, so that a write to one is a write to another.
void check_no_overlap(const Tensor& tensor, const char* op);
/// Raises if `tensor` was made in inference mode and this is outside of it.
void check_inference(const Tensor& tensor, const char* op);
/// Raises if an in-place change of `tensor` cannot be recorded.
void check_recordable(const Tensor& tensor, const char* op);
/// Makes `node` the maker of what is now in `self`, for its base and all views of that too.
void rebase_history(const Tensor& self, const Ref<Node>& node);
/// Gives `self` the geometry of `view`, a view of it, and its history if that is to be recorded. Returns
/// `self`.
Tensor rebase_geometry(const Tensor& self, const Tensor& view, const char* op);

/// What decides whether a call is recorded.
inline bool needs_grad(const Tensor& tensor) { return tensor.defined() && tensor.requires_grad(); }
inline bool needs_grad(TensorSpan tensors) {
  for (const Tensor& tensor : tensors) {
    if (needs_grad(tensor)) return true;
  }
  return false;
}

/// The edges of the node that this thread is about to run which lead to nothing that was asked for: bit i for
/// edge i < 64. Gradients along them need not be computed.
uint64_t& unwanted_edges();
/// Whether that node may run again.
bool& keeps_graph();
/// Whether nobody but the caller can see the memory of `tensor` and it is dense, so that it may be written.
bool is_sole_owner(const Tensor& tensor);

/// What a backward rule sees. It reads gradients and saved tensors and sets the gradients of the inputs; all
/// of it with differentiable functions, so that the rule itself is differentiable.
class Backward {
 public:
  /// `released` is set when what the node needs to run again is gone.
  Backward(Node& node, std::span<SavedTensor> saved, bool& released, TensorList& grads, size_t inputs)
      : node_(node),
        saved_(saved),
        released_(released),
        grads_(grads),
        results_(inputs),
        unwanted_(unwanted_edges()),
        keeps_graph_(keeps_graph()) {}

  /// Gradient of output i; undefined if nothing flowed there (never for an op with one output).
  const Tensor& grad(size_t i = 0) const { return grads_[i]; }
  /// What the op saved in slot i; undefined if nothing. Raises if it was changed in place since.
  Tensor saved(size_t i) const { return i < saved_.size() ? saved_[i].unpack(&node_) : Tensor(); }
  /// As saved(), for the last time in this rule: what nobody else keeps dies with the result.
  Tensor take_saved(size_t i) {
    Tensor taken = saved(i);
    if (keeps_graph_ || i >= saved_.size()) return taken;
    released_ = true;
    saved_[i] = {};
    return taken;
  }
  /// Whether the gradient of input i is wanted (inputs of a list count one by one).
  bool needs(size_t i) const { return node_.needs_input(i) && (i >= 64 || !(unwanted_ >> i & 1)); }
  size_t num_inputs() const { return results_.size(); }
  /// Whether the gradient will itself be differentiated; then only differentiable functions may be used.
  bool create_graph() const { return GradMode::is_enabled(); }
  void set(size_t i, Tensor grad) { results_[i] = std::move(grad); }
  const TensorMeta& output_meta(size_t i = 0) const { return node_.outputs[i]; }
  TensorList take_results() { return std::move(results_); }

 private:
  Node& node_;
  std::span<SavedTensor> saved_;
  bool& released_;
  TensorList& grads_;
  TensorList results_;
  uint64_t unwanted_;
  bool keeps_graph_;
};

/// Collects what the backward rule of a call needs.
class Saver {
 public:
  Saver(Node& node, std::vector<SavedTensor>& saved) : node_(node), saved_(saved) {}
  bool needs(size_t i) const { return node_.needs_input(i); }
  /// Keeps an input.
  void save(size_t slot, const Tensor& tensor) { put(slot, SavedTensor(tensor, false)); }
  /// Keeps an output of the call.
  void save_output(size_t slot, const Tensor& tensor) { put(slot, SavedTensor(tensor, true)); }

 private:
  void put(size_t slot, SavedTensor saved) {
    if (saved_.size() <= slot) saved_.resize(slot + 1);
    saved_[slot] = std::move(saved);
  }

  Node& node_;
  std::vector<SavedTensor>& saved_;
};

/// The node of a call: its saved tensors; params and rule come with the op.
class CallNode : public Node {
 public:
  void release_saved() override {
    released |= !saved.empty();
    saved.clear();
  }

  std::vector<SavedTensor> saved;
  bool released = false;

 protected:
  void check_not_released() const {
    OPSIN_CHECK(Error, !released, "Trying to backward through the graph a second time: the tensors that ",
                name(), " saved were freed by the first backward (pass retain_graph=True to it)");
  }
};

/// The name of the op that a call with these params is.
template <class Op>
const char* op_name([[maybe_unused]] const typename Op::Params& params) {
  if constexpr (requires { Op::name(params); }) {
    return Op::name(params);
  } else {
    return Op::kName;
  }
}

template <class Op>
class OpNode final : public CallNode {
 public:
  explicit OpNode(const typename Op::Params& params_) : params(params_) {}
  const char* name() const override { return op_name<Op>(params); }
  TensorList apply(TensorList grads) override {
    check_not_released();
    Backward context(*this, saved, released, grads, edges.size());
    Op::backward(context, params);
    return context.take_results();
  }

  typename Op::Params params;
};

}  // namespace opsin

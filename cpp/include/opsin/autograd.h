// Reverse-mode differentiation: the graph that calls record, and the engine that walks it.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include <opsin/tensor.h>

namespace opsin {

/// Whether calls of this thread record the graph.
class OPSIN_API GradMode {
 public:
  static bool is_enabled() { return flags().recording; }
  /// Has no effect in inference mode.
  static void set_enabled(bool enabled) {
    Flags& own = flags();
    own.recording = enabled && !own.inference;
  }

 private:
  struct Flags {
    bool recording = true;
    bool inference = false;
  };
  static Flags& flags();
  friend class InferenceMode;
};

/// Whether this thread only infers: nothing is recorded, and memory allocated meanwhile stays out of autograd
/// for good. Outside, it cannot be written in place or saved for a backward; a clone of it can.
class OPSIN_API InferenceMode{public : static bool is_enabled(){return GradMode::flags().inference;
}  // namespace opsin
/// Also turns recording off, or back on.
static void set_enabled(bool enabled) { GradMode::flags() = {!enabled, enabled}; }
}
;

/// Scope in which nothing is recorded: `NoGradGuard no_grad;`.
class NoGradGuard {
 public:
  NoGradGuard() : previous_(GradMode::is_enabled()) { GradMode::set_enabled(false); }
  ~NoGradGuard() { GradMode::set_enabled(previous_); }
  NoGradGuard(const NoGradGuard&) = delete;
  NoGradGuard& operator=(const NoGradGuard&) = delete;

 private:
  bool previous_;
};

/// One input of a recorded call: the node its gradient flows to, and as which of that node's outputs.
struct Edge {
  Ref<Node> node;
  uint32_t output_nr = 0;
};

/// Shape and type of one output of a recorded call; its gradient is brought to them.
struct TensorMeta {
  Dims sizes;
  DType dtype = kFloat32;
  Device device;
};

/// A function called with a gradient; returns the gradient to go on with, or an undefined tensor for "as is".
using GradHook = std::function<Tensor(const Tensor&)>;

/// A recorded call. `edges[i]` leads to input i; `outputs[j]` describes output j.
class OPSIN_API Node : public RefCounted {
 public:
  Node();
  virtual ~Node();
  /// Frees chains of any length without recursion.
  static void destroy(Node* node);

  virtual const char* name() const = 0;
  /// Gradients of the outputs in (undefined where nothing arrived), gradients of the inputs out.
  virtual TensorList apply(TensorList grads) = 0;
  /// Frees what backward would need; a later apply() raises.
  virtual void release_saved() {}
  bool needs_input(size_t i) const { return i < edges.size() && edges[i].node; }

  uint64_t sequence;  ///< Creation order in this thread; later nodes run earlier.
  std::vector<Edge> edges;
  std::vector<TensorMeta> outputs;

  /// A hook on the gradient of output `output_nr`, run before apply().
  struct Hook {
    uint64_t id;
    uint32_t output_nr;
    GradHook function;
  };
  std::vector<Hook> hooks;
};

/// The end of the graph at a leaf: holds the leaf's gradient, so that it outlives neither and needs no back
/// pointer.
class OPSIN_API AccumulateGrad final : public Node {
 public:
  explicit AccumulateGrad(const Tensor& leaf);
  const char* name() const override { return "accumulate_grad"; }
  TensorList apply(TensorList grads) override;

  Tensor grad;
  std::vector<std::pair<uint64_t, std::function<void()>>> post_hooks;
};

struct AutogradMeta {
  Ref<Node> grad_fn;
  uint32_t output_nr = 0;
  bool requires_grad = false;
  bool retains_grad = false;
  /// For views: the storage version for which grad_fn is right.
  uint32_t view_version = 0;
  /// For views: the tensor whose history an in-place change must reach.
  Tensor base;
  /// `.grad` of a tensor that is not a leaf with requires_grad.
  Tensor grad;
  /// For leaves with requires_grad.
  Ref<AccumulateGrad> accumulator;
};

/// Adds the gradients of `tensors` to the leaves below them, or only to `inputs` if given.
/// `gradients` may be empty (ones for tensors of one element) or hold one tensor for each.
OPSIN_API void backward(TensorSpan tensors, TensorSpan gradients = {}, bool retain_graph = false,
                        bool create_graph = false, TensorSpan inputs = {});
/// Gradients of `outputs` with respect to `inputs`, without touching `.grad`. An input that is not reached
/// raises unless `allow_unused`, then its gradient is undefined.
OPSIN_API TensorList grad(TensorSpan outputs, TensorSpan inputs, TensorSpan gradients = {},
                          bool retain_graph = false, bool create_graph = false, bool allow_unused = false);

/// Registers a hook on the gradient of `tensor`; returns an id for remove_hook.
OPSIN_API uint64_t register_hook(const Tensor& tensor, GradHook hook);
/// Called after the `.grad` of a leaf was updated.
OPSIN_API uint64_t register_post_accumulate_grad_hook(const Tensor& tensor, std::function<void()> hook);
OPSIN_API void remove_hook(const Tensor& tensor, uint64_t id);

}  // namespace opsin

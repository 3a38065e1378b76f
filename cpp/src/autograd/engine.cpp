// The backward pass: a walk over the recorded calls, later calls first, without recursion.
#include <algorithm>
#include <queue>
#include <unordered_map>

#include "autograd/autocast.h"
#include "autograd/history.h"
#include "core/profiler.h"

namespace opsin {

GradMode::Flags& GradMode::flags() {
  thread_local Flags flags;
  return flags;
}

uint64_t& unwanted_edges() {
  thread_local uint64_t edges = 0;
  return edges;
}

bool& keeps_graph() {
  thread_local bool keeps = true;
  return keeps;
}

bool is_sole_owner(const Tensor& tensor) {
  return tensor.ref()->use_count() == 1 && tensor.impl()->storage->use_count() == 1 &&
         !tensor.impl()->storage->escaped && tensor.is_contiguous();
}

namespace {

uint64_t next_sequence() {
  thread_local uint64_t sequence = 0;
  return sequence++;
}

class GradModeScope {
 public:
  explicit GradModeScope(bool enabled) : previous_(GradMode::is_enabled()) { GradMode::set_enabled(enabled); }
  ~GradModeScope() { GradMode::set_enabled(previous_); }
  GradModeScope(const GradModeScope&) = delete;
  GradModeScope& operator=(const GradModeScope&) = delete;

 private:
  bool previous_;
};

void accumulate(Tensor& sum, Tensor grad) {
  if (!sum.defined()) {
    sum = std::move(grad);
  } else if (!GradMode::is_enabled() && is_sole_owner(sum) && sum.sizes() == grad.sizes()) {
    add_(sum, grad, 1);
  } else {
    sum = add(sum, grad, 1);
  }
}

/// Node -> task index; open addressing, since this is the inner loop of small backward passes.
class TaskIndex {
 public:
  static constexpr uint32_t kNone = UINT32_MAX;

  /// The slot for `node`; kNone in it if the node is new.
  uint32_t& operator[](const Node* node) {
    if (2 * ++used_ > slots_.size()) grow();
    Slot& slot = find(node);
    if (slot.node) --used_;
    slot.node = node;
    return slot.index;
  }

 private:
  struct Slot {
    const Node* node = nullptr;
    uint32_t index = kNone;
  };

  Slot& find(const Node* node) {
    const size_t mask = slots_.size() - 1;
    size_t i = (reinterpret_cast<uintptr_t>(node) >> 4) * 0x9e3779b97f4a7c15u >> 20 & mask;
    while (slots_[i].node && slots_[i].node != node) i = (i + 1) & mask;
    return slots_[i];
  }

  void grow() {
    std::vector<Slot> old(std::max<size_t>(64, 2 * slots_.size()));
    old.swap(slots_);
    for (const Slot& slot : old) {
      if (slot.node) find(slot.node) = slot;
    }
  }

  std::vector<Slot> slots_;
  size_t used_ = 0;
};

/// Where a gradient is to be reported instead of (or beside) going on.
struct Capture {
  uint32_t output_nr;
  size_t result;
};

struct Task {
  explicit Task(Ref<Node> node_) : node(std::move(node_)), grads(node->outputs.size()) {}
  Ref<Node> node;
  TensorList grads;
  std::vector<Capture> captures;
  uint32_t dependencies = 0;
  bool needed = true;
};

class BackwardPass {
 public:
  BackwardPass(bool keep_graph, bool accumulate_leaves)
      : keep_graph_(keep_graph), accumulate_leaves_(accumulate_leaves) {}

  TensorList run(std::span<const Edge> roots, TensorList root_grads, std::span<const Edge> inputs) {
    collect(roots);
    TensorList results(inputs.size());
    for (size_t i = 0; i < inputs.size(); ++i) {
      const uint32_t found = inputs[i].node ? index_[inputs[i].node.get()] : TaskIndex::kNone;
      if (found != TaskIndex::kNone) tasks_[found].captures.push_back({inputs[i].output_nr, i});
    }
    has_targets_ = !inputs.empty();
    if (has_targets_) mark_needed();

    for (size_t i = 0; i < roots.size(); ++i) {
      accumulate(tasks_[index_[roots[i].node.get()]].grads[roots[i].output_nr], std::move(root_grads[i]));
    }
    for (uint32_t i = 0; i < tasks_.size(); ++i) {
      if (tasks_[i].dependencies == 0) push(i);
    }
    while (!ready_.empty()) {
      const uint32_t next = ready_.top().second;
      ready_.pop();
      execute(next, results);
    }
    return results;
  }

 private:
  void push(uint32_t task) { ready_.emplace(tasks_[task].node->sequence, task); }

  uint32_t visit(const Ref<Node>& node, std::vector<uint32_t>& stack) {
    uint32_t& index = index_[node.get()];
    if (index == TaskIndex::kNone) {
      index = static_cast<uint32_t>(tasks_.size());
      tasks_.emplace_back(node);
      stack.push_back(index);
    }
    return index;
  }

  void collect(std::span<const Edge> roots) {
    std::vector<uint32_t> stack;
    for (const Edge& root : roots) visit(root.node, stack);
    while (!stack.empty()) {
      const Ref<Node> node = tasks_[stack.back()].node;
      stack.pop_back();
      for (const Edge& edge : node->edges) {
        if (edge.node) ++tasks_[visit(edge.node, stack)].dependencies;
      }
    }
  }

  /// A task is needed if it is captured or leads to one that is. Children come later in execution order, so a
  /// reverse topological order by counting down dependencies settles every task before its parents.
  void mark_needed() {
    std::vector<uint32_t> order;
    order.reserve(tasks_.size());
    std::vector<uint32_t> open(tasks_.size());
    for (uint32_t i = 0; i < tasks_.size(); ++i) {
      open[i] = tasks_[i].dependencies;
      if (open[i] == 0) order.push_back(i);
    }
    for (size_t next = 0; next < order.size(); ++next) {
      for (const Edge& edge : tasks_[order[next]].node->edges) {
        if (!edge.node) continue;
        const uint32_t child = index_[edge.node.get()];
        if (--open[child] == 0) order.push_back(child);
      }
    }
    for (size_t i = order.size(); i-- > 0;) {
      Task& task = tasks_[order[i]];
      task.needed = !task.captures.empty();
      for (const Edge& edge : task.node->edges) {
        if (edge.node && tasks_[index_[edge.node.get()]].needed) task.needed = true;
      }
    }
  }

  void execute(uint32_t index, TensorList& results) {
    Task& task = tasks_[index];
    Node& node = *task.node;
    TensorList grads = std::move(task.grads);
    const bool any =
        std::any_of(grads.begin(), grads.end(), [](const Tensor& grad) { return grad.defined(); });
    TensorList input_grads;
    if (any && task.needed) {
      run_hooks(node, grads);
      for (const Capture& capture : task.captures) results[capture.result] = grads[capture.output_nr];
      const bool is_end = node.edges.empty();
      if (!is_end || accumulate_leaves_) {
        profiler::Scope scope;
        if (profiler::wants(profiler::kOn)) [[unlikely]]
          scope.start(node.name(), ProfilerEvent::Kind::kBackward);
        unwanted_edges() = unwanted_of(node);
        keeps_graph() = keep_graph_;
        input_grads = node.apply(std::move(grads));
        if (!keep_graph_) node.release_saved();
      }
    }
    for (size_t i = 0; i < node.edges.size(); ++i) {
      const Edge& edge = node.edges[i];
      if (!edge.node) continue;
      const uint32_t child = index_[edge.node.get()];
      Task& next = tasks_[child];
      if (i < input_grads.size() && input_grads[i].defined() && next.needed) {
        accumulate(next.grads[edge.output_nr],
                   fit(std::move(input_grads[i]), edge.node->outputs[edge.output_nr], node, i));
      }
      if (--next.dependencies == 0) push(child);
    }
    task.node.reset();
  }

  uint64_t unwanted_of(const Node& node) {
    if (!has_targets_) return 0;
    uint64_t edges = 0;
    for (size_t i = 0; i < std::min<size_t>(node.edges.size(), 64); ++i) {
      const Node* const next = node.edges[i].node.get();
      if (next && !tasks_[index_[next]].needed) edges |= uint64_t{1} << i;
    }
    return edges;
  }

  static void run_hooks(Node& node, TensorList& grads) {
    // By index: a hook may register another.
    for (size_t i = 0; i < node.hooks.size(); ++i) {
      const uint32_t output_nr = node.hooks[i].output_nr;
      if (!grads[output_nr].defined()) continue;
      const GradHook function = node.hooks[i].function;
      Tensor replaced = function(grads[output_nr]);
      if (!replaced.defined()) continue;
      OPSIN_CHECK(ShapeError, replaced.sizes() == grads[output_nr].sizes(),
                  "hook: expected a gradient of shape ", str(grads[output_nr].sizes()), ", got ",
                  str(replaced.sizes()));
      grads[output_nr] = std::move(replaced);
    }
  }

  /// Brings a gradient to the shape and dtype of the tensor it belongs to: undoes broadcasting and promotion.
  static Tensor fit(Tensor grad, const TensorMeta& meta, const Node& node, size_t input) {
    if (!(grad.sizes() == meta.sizes)) {
      bool expandable = grad.sizes().size() >= meta.sizes.size();
      for (size_t i = 0; expandable && i < meta.sizes.size(); ++i) {
        const int64_t size = grad.sizes()[grad.sizes().size() - meta.sizes.size() + i];
        expandable = meta.sizes[i] == size || meta.sizes[i] == 1;
      }
      OPSIN_CHECK(ShapeError, expandable, node.name(), ": its backward gave input ", input,
                  " a gradient of shape ", str(grad.sizes()), ", expected one that reduces to ",
                  str(meta.sizes));
      grad = sum_to_size(grad, meta.sizes);
    }
    if (grad.dtype() != meta.dtype) grad = to(grad, meta.dtype);
    if (grad.device() == meta.device) return grad;
    // A number on the CPU may be combined with tensors on a GPU.
    OPSIN_CHECK(Error, grad.dim() == 0, node.name(), ": its backward gave input ", input, " a gradient on ",
                grad.device().str(), ", expected one on ", meta.device.str());
    return to(grad, meta.device);
  }

  bool keep_graph_;
  bool accumulate_leaves_;
  bool has_targets_ = false;
  TaskIndex index_;
  std::vector<Task> tasks_;
  std::priority_queue<std::pair<uint64_t, uint32_t>> ready_;
};

TensorList run_backward(TensorSpan outputs, TensorSpan gradients, TensorSpan inputs, bool retain_graph,
                        bool create_graph, bool accumulate_leaves) {
  OPSIN_CHECK(Error, gradients.empty() || gradients.size() == outputs.size(), "backward: got ",
              outputs.size(), " tensors and ", gradients.size(), " gradients");
  std::vector<Edge> roots;
  TensorList grads;
  for (size_t i = 0; i < outputs.size(); ++i) {
    const Tensor& output = outputs[i];
    OPSIN_CHECK(Error, needs_grad(output), "backward: element ", i,
                " of tensors does not require grad and does not have a grad_fn");
    Tensor gradient = gradients.empty() ? Tensor() : gradients[i];
    if (!gradient.defined()) {
      OPSIN_CHECK(Error, output.numel() == 1,
                  "backward: grad can be implicitly created only for scalar outputs, got shape ",
                  str(output.sizes()), " (pass a gradient of that shape)");
      gradient = ones(output.sizes(), output.dtype(), output.device());
    }
    OPSIN_CHECK(ShapeError, gradient.sizes() == output.sizes(), "backward: Mismatch in shape: grad_output[",
                i, "] has a shape of ", str(gradient.sizes()), " and output[", i, "] has a shape of ",
                str(output.sizes()));
    OPSIN_CHECK(Error, gradient.device() == output.device(), "backward: grad_output[", i, "] is on ",
                gradient.device().str(), ", output[", i, "] on ", output.device().str(), " (move it first)");
    roots.push_back(gradient_edge(output));
    grads.push_back(std::move(gradient));
  }
  std::vector<Edge> targets;
  for (size_t i = 0; i < inputs.size(); ++i) {
    OPSIN_CHECK(Error, needs_grad(inputs[i]),
                "One of the differentiated Tensors does not require grad (input ", i, " of shape ",
                inputs[i].defined() ? str(inputs[i].sizes()) : "none", ")");
    targets.push_back(gradient_edge(inputs[i]));
  }
  const GradModeScope mode(create_graph);
  const autocast::Suspend no_autocast;
  return BackwardPass(retain_graph || create_graph, accumulate_leaves).run(roots, std::move(grads), targets);
}

}  // namespace

Node::Node() : sequence(next_sequence()) {}
Node::~Node() = default;

void Node::destroy(Node* node) {
  // Deleting a node drops the nodes below it: they queue up here instead of recursing.
  thread_local std::vector<Node*>* pending = nullptr;
  if (pending) {
    pending->push_back(node);
    return;
  }
  std::vector<Node*> queue{node};
  pending = &queue;
  while (!queue.empty()) {
    Node* next = queue.back();
    queue.pop_back();
    delete next;
  }
  pending = nullptr;
}

AccumulateGrad::AccumulateGrad(const Tensor& leaf) : grad(leaf.impl()->autograd->grad) {
  sequence = UINT64_MAX;
  outputs.push_back({leaf.sizes(), leaf.dtype(), leaf.device()});
}

TensorList AccumulateGrad::apply(TensorList grads) {
  Tensor& fresh = grads[0];
  // It may stay for long, and what is pending keeps more memory alive.
  (void)fresh.impl()->physical_data();
  if (!grad.defined()) {
    // A gradient that somebody else can see must not be written by the next backward.
    grad = GradMode::is_enabled() || (is_sole_owner(fresh) && !fresh.impl()->autograd)
               ? fresh
               : clone(fresh.detach());
  } else if (GradMode::is_enabled()) {
    grad = add(grad, fresh, 1);
  } else {
    add_(grad, fresh, 1);
  }
  for (size_t i = 0; i < post_hooks.size(); ++i) {
    const auto function = post_hooks[i].second;
    function();
  }
  return {};
}

void backward(TensorSpan tensors, TensorSpan gradients, bool retain_graph, bool create_graph,
              TensorSpan inputs) {
  // Leaves are reached by their own nodes.
  for (const Tensor& input : inputs) {
    if (needs_grad(input) && !input.is_leaf()) input.retain_grad();
  }
  run_backward(tensors, gradients, inputs, retain_graph, create_graph, /*accumulate_leaves=*/true);
}

TensorList grad(TensorSpan outputs, TensorSpan inputs, TensorSpan gradients, bool retain_graph,
                bool create_graph, bool allow_unused) {
  TensorList results =
      run_backward(outputs, gradients, inputs, retain_graph, create_graph, /*accumulate_leaves=*/false);
  for (size_t i = 0; i < results.size(); ++i) {
    OPSIN_CHECK(Error, allow_unused || results[i].defined(),
                "One of the differentiated Tensors appears to not have been used in the graph (input ", i,
                " of shape ", str(inputs[i].sizes()),
                "). Set allow_unused=True if this is the desired behavior.");
  }
  return results;
}

}  // namespace opsin

#include "autograd/history.h"

#include <algorithm>

namespace opsin {

namespace {

/// The id of the hooks that retain_grad() makes, the last hooks of a node; ids for remove_hook start after
/// it.
constexpr uint64_t kRetainGradHook = 0;

TensorMeta meta_of(const Tensor& tensor) { return {tensor.sizes(), tensor.dtype(), tensor.device()}; }

/// The gradient of "write `function(view)` into the view's part of the base": outside the part the gradient
/// of the base passes unchanged, inside it flows through `function`.
class CopySlices final : public Node {
 public:
  CopySlices(const Tensor& base, const Tensor& view, Ref<Node> function)
      : base_strides_(base.strides()),
        base_offset_(base.storage_offset()),
        sizes_(view.sizes()),
        strides_(view.strides()),
        offset_(view.storage_offset()),
        function_(std::move(function)) {
    edges.push_back(gradient_edge(base));
    for (size_t i = 1; i < function_->edges.size(); ++i) edges.push_back(function_->edges[i]);
  }

  const char* name() const override { return "copy_slices"; }

  TensorList apply(TensorList grads) override {
    OPSIN_CHECK(Error, function_,
                "Trying to backward through the graph a second time: an in-place change of a view was "
                "freed by the first backward (pass retain_graph=True to it)");
    const TensorMeta& base = outputs[0];
    // The part is addressed by the base's own strides, so the gradient must have them.
    const Tensor result = empty_strided(base.sizes, base_strides_, base.dtype, base.device);
    copy_(result, grads[0]);
    const Tensor part = as_strided(result, sizes_, strides_, offset_ - base_offset_);
    TensorList inner = function_->apply({clone(part)});
    TensorList results(edges.size());
    for (size_t i = 1; i < inner.size(); ++i) results[i] = inner[i];
    if (needs_input(0)) {
      copy_(part, inner[0].defined() ? inner[0] : zeros(sizes_, base.dtype, base.device));
      results[0] = result;
    }
    return results;
  }

  void release_saved() override { function_.reset(); }

 private:
  Dims base_strides_;
  int64_t base_offset_;
  Dims sizes_;
  Dims strides_;
  int64_t offset_;
  Ref<Node> function_;
};

const Ref<Node>& own_grad_fn(const AutogradMeta& meta) { return meta.grad_fn; }

/// Whether the history of a view is older than the last in-place change of its base.
bool view_is_stale(const AutogradMeta& meta, const Tensor& view) {
  return meta.base.defined() && meta.view_version != view.version() && meta.base.impl()->autograd &&
         own_grad_fn(*meta.base.impl()->autograd);
}

}  // namespace

Tensor alias_without_history(const Tensor& tensor) {
  TensorImpl* impl = tensor.impl();
  return Tensor(make_ref<TensorImpl>(impl->storage, impl->dtype, impl->sizes, impl->strides, impl->offset));
}

Edge gradient_edge(const Tensor& tensor) {
  if (!needs_grad(tensor)) return {};
  if (Ref<Node> node = tensor.grad_fn()) return {std::move(node), tensor.impl()->autograd->output_nr};
  AutogradMeta& meta = *tensor.impl()->autograd;
  if (!meta.accumulator) meta.accumulator = make_ref<AccumulateGrad>(tensor);
  return {meta.accumulator, 0};
}

void set_maker(AutogradMeta& meta, Ref<Node> node, uint32_t output_nr) {
  if (meta.retains_grad && meta.grad_fn) {
    std::vector<Node::Hook>& hooks = meta.grad_fn->hooks;
    const auto retained = std::find_if(hooks.begin(), hooks.end(), [&](const Node::Hook& hook) {
      return hook.id == kRetainGradHook && hook.output_nr == meta.output_nr;
    });
    node->hooks.push_back({kRetainGradHook, output_nr, std::move(retained->function)});
    hooks.erase(retained);
  }
  meta.grad_fn = std::move(node);
  meta.output_nr = output_nr;
  meta.requires_grad = true;
}

void set_history(const Tensor& output, const Ref<Node>& node) {
  if (!output.defined()) {
    node->outputs.emplace_back();
    return;
  }
  const auto output_nr = static_cast<uint32_t>(node->outputs.size());
  node->outputs.push_back(meta_of(output));
  if (!is_differentiable(output.dtype())) return;
  set_maker(autograd_meta(output), node, output_nr);
}

void set_view(const Tensor& view, const Tensor& source) {
  if (!GradMode::is_enabled() || !is_differentiable(source.dtype()) || view.dtype() != source.dtype() ||
      view.impl()->storage.get() != source.impl()->storage.get()) {
    return;
  }
  AutogradMeta& meta = autograd_meta(view);
  const AutogradMeta* source_meta = source.impl()->autograd.get();
  meta.base = source_meta && source_meta->base.defined() ? source_meta->base : source;
  meta.view_version = view.version();
}

void check_no_overlap(const Tensor& tensor, const char* op) {
  const TensorImpl* impl = tensor.impl();
  if (impl->contiguous || impl->numel == 0) return;
  for (size_t i = 0; i < impl->sizes.size(); ++i) {
    OPSIN_CHECK(
        Error, impl->sizes[i] <= 1 || impl->strides[i] != 0, op,
        ": unsupported operation: more than one element of the written-to tensor refers to a single memory "
        "location, got sizes ",
        str(impl->sizes), " with strides ", str(impl->strides), " (clone() it before writing)");
  }
}

void check_inference(const Tensor& tensor, const char* op) {
  OPSIN_CHECK(Error, !tensor.is_inference() || InferenceMode::is_enabled(), op,
              ": Inplace update to inference tensor outside InferenceMode is not allowed, got one of shape ",
              str(tensor.sizes()), " (make a clone() to get a normal tensor before the in-place update)");
}

void check_recordable(const Tensor& tensor, const char* op) {
  OPSIN_CHECK(Error, is_differentiable(tensor.dtype()), op, ": cannot record an in-place change of a ",
              name(tensor.dtype()), " tensor (only floating-point tensors carry gradients)");
  OPSIN_CHECK(Error, !(tensor.requires_grad() && tensor.is_leaf()), op,
              ": a leaf Variable that requires grad is being used in an in-place operation. (wrap it in "
              "no_grad, or work "
              "on a clone)");
  if (const AutogradMeta* meta = tensor.impl()->autograd.get(); meta && meta->base.defined()) {
    OPSIN_CHECK(
        Error, !(meta->base.requires_grad() && meta->base.is_leaf()), op,
        ": a view of a leaf Variable that requires grad is being used in an in-place operation. (wrap it in "
        "no_grad, or work on a clone)");
  }
}

void rebase_history(const Tensor& self, const Ref<Node>& node) {
  AutogradMeta& meta = autograd_meta(self);
  if (!meta.base.defined()) {
    set_history(self, node);
    return;
  }
  node->outputs.push_back(meta_of(self));
  set_history(meta.base, make_ref<CopySlices>(meta.base, self, node));
  meta.requires_grad = true;
  (void)self.grad_fn();
}

Tensor rebase_geometry(const Tensor& self, const Tensor& view, const char* op) {
  const bool record = GradMode::is_enabled() && self.requires_grad();
  check_inference(self, op);
  if (record) check_recordable(self, op);
  // Once the version counts on, the view would look for its history in `self`.
  Ref<Node> node = record ? view.grad_fn() : nullptr;
  TensorImpl* impl = self.impl();
  impl->sizes = view.sizes();
  impl->strides = view.strides();
  impl->contiguous = view.is_contiguous();
  self.bump_version();
  if (record) {
    AutogradMeta& meta = *impl->autograd;
    set_maker(meta, std::move(node), view.output_nr());
    meta.view_version = self.version();
  } else if (impl->autograd && impl->autograd->accumulator) {
    impl->autograd->accumulator->outputs[0] = meta_of(self);
  }
  return self;
}

// --- the autograd half of Tensor ---

bool Tensor::requires_grad() const {
  const AutogradMeta* meta = impl_->autograd.get();
  if (!meta) return false;
  if (meta->requires_grad) return true;
  if (!meta->base.defined()) return false;
  const AutogradMeta* base = meta->base.impl()->autograd.get();
  return base && base->grad_fn && base->requires_grad;
}

const Tensor& Tensor::set_requires_grad(bool requires_grad_) const {
  OPSIN_CHECK(Error, !requires_grad_ || is_differentiable(dtype()),
              "requires_grad_: only Tensors of floating point and complex dtype can require gradients, got ",
              name(dtype()));
  OPSIN_CHECK(Error, !requires_grad_ || !is_inference() || InferenceMode::is_enabled(),
              "requires_grad_: Setting requires_grad=True on inference tensor outside InferenceMode is not "
              "allowed (set it on a clone())");
  OPSIN_CHECK(
      Error, requires_grad_ || is_leaf(),
      "requires_grad_: you can only change requires_grad flags of leaf variables. (use detach() for a tensor "
      "outside the graph)");
  if (requires_grad_ || impl_->autograd) autograd_meta(*this).requires_grad = requires_grad_;
  return *this;
}

bool Tensor::is_leaf() const { return !impl_->autograd || !grad_fn(); }

Tensor Tensor::grad() const {
  const AutogradMeta* meta = impl_->autograd.get();
  if (!meta) return {};
  return meta->accumulator ? meta->accumulator->grad : meta->grad;
}

void Tensor::set_grad(const Tensor& grad) const {
  if (!grad.defined() && !impl_->autograd) return;
  if (grad.defined()) {
    OPSIN_CHECK(ShapeError, grad.sizes() == sizes(), "grad: expected the shape of the tensor, ", str(sizes()),
                ", got ", str(grad.sizes()));
    OPSIN_CHECK(TypeError, grad.dtype() == dtype(), "grad: expected dtype ", name(dtype()), ", got ",
                name(grad.dtype()));
    OPSIN_CHECK(Error, grad.device() == device(), "grad: expected a tensor on ", device().str(),
                ", got one on ", grad.device().str(),
                " (assigned grad has data located on a different device)");
    OPSIN_CHECK(Error, !grad.is_same(*this), "grad: can't assign a tensor as its own grad");
  }
  AutogradMeta& meta = autograd_meta(*this);
  (meta.accumulator ? meta.accumulator->grad : meta.grad) = grad;
}

void Tensor::retain_grad() const {
  OPSIN_CHECK(Error, requires_grad(),
              "retain_grad: can't retain_grad on Tensor that has requires_grad=False");
  AutogradMeta& meta = autograd_meta(*this);
  const Ref<Node> node = grad_fn();
  if (!node || meta.retains_grad) return;
  meta.retains_grad = true;
  // The graph holds the hook, so the hook must hold neither the graph nor this tensor: a slot shared by both.
  meta.accumulator = make_ref<AccumulateGrad>(*this);
  node->hooks.push_back({kRetainGradHook, meta.output_nr, [slot = meta.accumulator](const Tensor& grad) {
                           slot->grad = slot->grad.defined() ? add(slot->grad, grad, 1) : grad;
                           return Tensor();
                         }});
}

Ref<Node> Tensor::grad_fn() const {
  AutogradMeta* meta = impl_->autograd.get();
  if (!meta) return {};
  if (view_is_stale(*meta, *this)) {
    set_maker(*meta, make_as_strided_node(meta->base, *this), 0);
    meta->view_version = version();
  }
  return meta->grad_fn;
}

uint32_t Tensor::output_nr() const { return impl_->autograd ? impl_->autograd->output_nr : 0; }

Tensor Tensor::detach() const { return alias_without_history(*this); }

void Tensor::backward(const Tensor& gradient, bool retain_graph, bool create_graph) const {
  if (gradient.defined()) {
    opsin::backward({this, 1}, {&gradient, 1}, retain_graph, create_graph);
  } else {
    opsin::backward({this, 1}, {}, retain_graph, create_graph);
  }
}

// --- hooks ---

namespace {
uint64_t next_hook_id() {
  static std::atomic<uint64_t> next{1};
  return next.fetch_add(1, std::memory_order_relaxed);
}
}  // namespace

uint64_t register_hook(const Tensor& tensor, GradHook hook) {
  OPSIN_CHECK(Error, needs_grad(tensor),
              "register_hook: cannot register a hook on a tensor that doesn't require gradient");
  const Edge edge = gradient_edge(tensor);
  const uint64_t id = next_hook_id();
  std::vector<Node::Hook>& hooks = edge.node->hooks;
  const auto retained =
      std::ranges::find_if(hooks, [](const Node::Hook& other) { return other.id == kRetainGradHook; });
  hooks.insert(retained, {id, edge.output_nr, std::move(hook)});
  return id;
}

uint64_t register_post_accumulate_grad_hook(const Tensor& tensor, std::function<void()> hook) {
  OPSIN_CHECK(Error, needs_grad(tensor) && tensor.is_leaf(),
              "register_post_accumulate_grad_hook: post accumulate grad hooks cannot be registered on "
              "non-leaf tensors");
  (void)gradient_edge(tensor);
  const uint64_t id = next_hook_id();
  tensor.impl()->autograd->accumulator->post_hooks.emplace_back(id, std::move(hook));
  return id;
}

void remove_hook(const Tensor& tensor, uint64_t id) {
  if (!needs_grad(tensor)) return;
  Node& node = *gradient_edge(tensor).node;
  std::erase_if(node.hooks, [id](const Node::Hook& hook) { return hook.id == id; });
  if (const auto& accumulator = tensor.impl()->autograd->accumulator) {
    std::erase_if(accumulator->post_hooks, [id](const auto& hook) { return hook.first == id; });
  }
}

}  // namespace opsin

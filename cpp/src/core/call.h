// The one way of a call. A public function checks nothing and records nothing itself: it goes through
// `call<Op>`.
//
//   struct Op {
//     static constexpr const char* kName = "conv";
//     struct Params { ... };                                     // everything that is not a tensor
//     static Tensor forward(const Params&, const Tensor& x, ...);   // checks, output shape, kernel; any of
//                                                                   // Tensor, std::array<Tensor, N>,
//                                                                   TensorList
//     static void save(Saver&, const Params&, const Tensor& x, ..., const Tensor& y);
//     static void backward(Backward&, const Params&);            // absent: not differentiable
//     static constexpr bool kView = true;                        // the output is a view of the first input
//   };
//
// Inputs are tensors (undefined = absent) or a TensorSpan. `call_inplace<Op>` needs instead of `forward`
//     static void forward_into(Tensor& y, const Params&, const Tensor& x, ...);   // y undefined: allocate
// and, if `save` keeps the first input, `kSavesSelf = true`.
// An op that multiplies much says how much, for the profiler:
//     static int64_t flops(const Params&, const Tensor& x, ...);
// Inputs lie on one device, but for 0-d tensors on the CPU; an op that copies between devices says
//     static constexpr bool kAnyDevice = true;
// A family that shares one Op over a table gives `static const char* name(const Params&)` for kName and
// `static bool saves_self(const Params&)` for kSavesSelf.
#pragma once

#include "autograd/autocast.h"
#include "autograd/history.h"
#include "core/profiler.h"

namespace opsin {

namespace detail {

inline void add_edges(std::vector<Edge>& edges, const Tensor& input) {
  edges.push_back(gradient_edge(input));
}
inline void add_edges(std::vector<Edge>& edges, TensorSpan inputs) {
  for (const Tensor& input : inputs) edges.push_back(gradient_edge(input));
}
inline size_t count_inputs(const Tensor&) { return 1; }
inline size_t count_inputs(TensorSpan inputs) { return inputs.size(); }

inline void set_histories(const Tensor& output, const Ref<Node>& node) { set_history(output, node); }
template <class Range>
void set_histories(const Range& outputs, const Ref<Node>& node) {
  for (const Tensor& output : outputs) set_history(output, node);
}

template <class Op>
inline constexpr bool is_view = requires { Op::kView; };
template <class Op>
bool saves_self([[maybe_unused]] const typename Op::Params& params) {
  if constexpr (requires { Op::saves_self(params); }) {
    return Op::saves_self(params);
  } else if constexpr (requires { Op::kSavesSelf; }) {
    return Op::kSavesSelf;
  } else {
    return false;
  }
}
/// What the graph keeps of an input of a call that writes over `self`: a copy if that is its memory too.
inline Tensor kept(const Tensor& input, const Tensor& self) {
  return input.defined() && input.impl()->storage == self.impl()->storage ? clone(input) : input;
}
inline TensorSpan kept(TensorSpan inputs, const Tensor&) { return inputs; }

template <class Op>
inline constexpr bool has_backward = requires { &Op::backward; };
template <class Op>
inline constexpr bool has_forward_into = requires { &Op::forward_into; };

inline void set_views(const Tensor& output, const Tensor& source) { set_view(output, source); }
template <class Range>
void set_views(const Range& outputs, const Tensor& source) {
  for (const Tensor& output : outputs) set_view(output, source);
}

template <class Op, class... Inputs>
auto run_forward(const typename Op::Params& params, const Inputs&... inputs) {
  if constexpr (has_forward_into<Op>) {
    Tensor output;
    Op::forward_into(output, params, inputs...);
    return output;
  } else {
    return Op::forward(params, inputs...);
  }
}

template <class Op, class... Inputs>
Ref<OpNode<Op>> make_node(const typename Op::Params& params, const Inputs&... inputs) {
  auto node = make_ref<OpNode<Op>>(params);
  node->edges.reserve((count_inputs(inputs) + ... + 0));
  (add_edges(node->edges, inputs), ...);
  return node;
}

/// The devices of a call's inputs.
class Devices {
 public:
  void add(const Tensor& input) {
    if (!input.defined()) return;
    const Device device = input.device();
    if (device.is_cpu()) {
      cpu_ |= !input.sizes().empty();
    } else if (first_.is_cpu()) {
      first_ = device;
    } else if (!(first_ == device)) {
      second_ = device;
    }
  }
  void add(TensorSpan inputs) {
    for (const Tensor& input : inputs) add(input);
  }
  void check(const char* op) const {
    if (first_.is_cpu() || (!cpu_ && second_.is_cpu())) return;
    raise<Error>(op, ": Expected all tensors to be on the same device, but found at least two devices, ",
                 first_.str(), " and ", second_.str(), " (move one with to())");
  }

 private:
  Device first_, second_;
  bool cpu_ = false;
};

template <class Op, class... Inputs>
void check_devices([[maybe_unused]] const typename Op::Params& params, const Inputs&... inputs) {
  if constexpr (!requires { Op::kAnyDevice; }) {
    Devices devices;
    (devices.add(inputs), ...);
    devices.check(op_name<Op>(params));
  }
}

template <class Op, class... Inputs>
[[gnu::cold, gnu::noinline]] void profile(profiler::Scope& scope, const typename Op::Params& params,
                                          const Inputs&... inputs) {
  scope.start(op_name<Op>(params), ProfilerEvent::Kind::kOp);
  if (profiler::wants(profiler::kShapes)) (scope.add_shapes(inputs), ...);
  if constexpr (requires { &Op::flops; }) {
    if (profiler::wants(profiler::kFlops)) scope.add_flops(Op::flops(params, inputs...));
  }
}

}  // namespace detail

template <class Op, class... Inputs>
auto call(const typename Op::Params& params, const Inputs&... inputs) {
  profiler::Scope scope;
  if (profiler::wants(profiler::kOn)) [[unlikely]]
    detail::profile<Op>(scope, params, inputs...);
  detail::check_devices<Op>(params, inputs...);
  if constexpr (detail::has_backward<Op>) {
    if (GradMode::is_enabled() && (needs_grad(inputs) || ...)) {
      auto output = [&] {
        NoGradGuard no_grad;
        return detail::run_forward<Op>(params, inputs...);
      }();
      if constexpr (detail::is_view<Op>) detail::set_views(output, std::get<0>(std::tie(inputs...)));
      auto node = detail::make_node<Op>(params, inputs...);
      detail::set_histories(output, node);
      if constexpr (requires { &Op::save; }) {
        Saver saver(*node, node->saved);
        Op::save(saver, params, inputs..., output);
      }
      return output;
    }
  }
  auto output = detail::run_forward<Op>(params, inputs...);
  if constexpr (detail::is_view<Op>) detail::set_views(output, std::get<0>(std::tie(inputs...)));
  return output;
}

/// Writes the result over `self`, the first input. Returns `self`.
template <class Op, class... Inputs>
Tensor call_inplace(const typename Op::Params& params, const Tensor& self, const Inputs&... others) {
  profiler::Scope scope;
  if (profiler::wants(profiler::kOn)) [[unlikely]]
    detail::profile<Op>(scope, params, self, others...);
  detail::check_devices<Op>(params, self, others...);
  bool record = false;
  if constexpr (detail::has_backward<Op>) {
    record = GradMode::is_enabled() && (needs_grad(self) || (needs_grad(others) || ...));
  }
  check_inference(self, op_name<Op>(params));
  check_no_overlap(self, op_name<Op>(params));
  if (record) check_recordable(self, op_name<Op>(params));
  if (!record) {
    Tensor output = self;
    Op::forward_into(output, params, self, others...);
    self.bump_version();
    return self;
  }
  if constexpr (detail::has_backward<Op>) {
    constexpr bool kSaves = requires { &Op::save; };
    const auto run = [&](const auto&... inputs) {
      const Tensor before = detail::saves_self<Op>(params) ? clone(self) : self;
      auto node = detail::make_node<Op>(params, before, inputs...);
      {
        NoGradGuard no_grad;
        Tensor output = self;
        Op::forward_into(output, params, self, others...);
      }
      self.bump_version();
      rebase_history(self, node);
      if constexpr (kSaves) {
        Saver saver(*node, node->saved);
        Op::save(saver, params, before, inputs..., self);
      }
    };
    if constexpr (kSaves) {
      run(detail::kept(others, self)...);
    } else {
      run(others...);
    }
  }
  return self;
}

}  // namespace opsin

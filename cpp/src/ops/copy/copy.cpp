// Copies and conversions. Their gradient is the gradient itself: the engine converts it to the dtype and
// shape of the input.
#include "copy_kernels.h"

#include <opsin/ops/copy.h>

#include "core/backend.h"
#include "core/call.h"
#include "core/dispatch.h"
#include "core/registry.h"
#include "core/relayout.h"

namespace opsin {

constinit ElementwiseSlot copy_forward[kNumDTypes] = {
    ElementwiseSlot("copy_bool"),    ElementwiseSlot("copy_uint8"),     ElementwiseSlot("copy_int8"),
    ElementwiseSlot("copy_int16"),   ElementwiseSlot("copy_int32"),     ElementwiseSlot("copy_int64"),
    ElementwiseSlot("copy_float16"), ElementwiseSlot("copy_bfloat16"),  ElementwiseSlot("copy_float32"),
    ElementwiseSlot("copy_float64"), ElementwiseSlot("copy_complex64"), ElementwiseSlot("copy_complex128"),
};

namespace {

template <class T>
inline constexpr bool is_complex_type =
    std::is_same_v<T, std::complex<float>> || std::is_same_v<T, std::complex<double>>;

template <class From, class To>
void complex_loop(char* const* data, const int64_t* strides, int64_t n, const void*) {
  for (int64_t i = 0; i < n; ++i) {
    const From from = *reinterpret_cast<const From*>(data[1] + i * strides[1]);
    auto& to = *reinterpret_cast<To*>(data[0] + i * strides[0]);
    if constexpr (is_complex_type<From> && is_complex_type<To>) {
      to = static_cast<To>(from);
    } else if constexpr (is_complex_type<From> && std::is_same_v<To, bool>) {
      to = from != From();
    } else if constexpr (is_complex_type<From>) {
      to = Scalar(static_cast<double>(from.real())).to<To>();
    } else if constexpr (is_complex_type<To>) {
      to = To(static_cast<typename To::value_type>(from));
    } else {
      to = static_cast<To>(from);
    }
  }
}

LoopFn cast_loop(DType from, DType to) {
  if (!is_complex(from) && !is_complex(to)) {
    return OPSIN_ISA_SELECT(cpu::cast_table).loop[static_cast<int>(from)][static_cast<int>(to)];
  }
  return dispatch_all(from, "copy_", [&]<class From>() -> LoopFn {
    return dispatch_all(to, "copy_", [&]<class To>() -> LoopFn { return complex_loop<From, To>; });
  });
}

/// The same elements in the same order of memory on another device.
Tensor transfer(const Tensor& x, Device device, bool non_blocking) {
  const Tensor from = is_dense(x.sizes(), x.impl()->physical_strides()) ? x : contiguous(x);
  TensorImpl& source = *from.impl();
  const bool hidden = source.is_hidden();
  const Tensor y = hidden ? empty_channels_last(source.sizes, source.dtype, device)
                          : empty_strided(source.sizes, source.strides, source.dtype, device);
  if (source.numel == 0) return y;
  const size_t bytes = static_cast<size_t>(source.numel) * item_size(source.dtype);
  const Device home = x.device();
  backend(home.is_cpu() ? device : home)
      .copy(y.impl()->mutable_physical_data(), device, source.physical_data(), home, bytes, non_blocking);
  return y;
}

/// Writes `source`, broadcast, over `destination`; dtypes and devices may differ.
void copy_elements(Tensor& destination, const Tensor& source, const char* op, DType dtype,
                   bool non_blocking = false) {
  if (destination.defined() && destination.device() != source.device()) {
    // Fewer bytes move when the narrower dtype does.
    const Tensor narrow = item_size(dtype) < item_size(source.dtype()) ? to(source, dtype) : source;
    return copy_elements(destination, transfer(narrow, destination.device(), non_blocking), op, dtype);
  }
  Elementwise plan(op, destination, dtype);
  plan.input(source, source.dtype());
  plan.build();
  plan.run(copy_forward[static_cast<int>(dtype)].get(plan.device(), source.dtype()));
}

struct Clone {
  static constexpr const char* kName = "clone";
  struct Params {};
  static Tensor forward(const Params&, const Tensor& x) {
    Tensor y;
    // A broadcast dimension (stride 0) gets memory of its own, in row-major order.
    copy_elements(y, x, kName, x.dtype());
    return y;
  }
  static void backward(Backward& ctx, const Params&) { ctx.set(0, ctx.grad()); }
};

struct To {
  static constexpr const char* kName = "to";
  struct Params {
    DType dtype;
  };
  static Tensor forward(const Params& params, const Tensor& x) {
    Tensor y;
    copy_elements(y, x, kName, params.dtype);
    return y;
  }
  static void backward(Backward& ctx, const Params&) { ctx.set(0, ctx.grad()); }
};

struct Contiguous {
  static constexpr const char* kName = "contiguous";
  struct Params {};
  static Tensor forward(const Params&, const Tensor& x) {
    Tensor y = empty(x.sizes(), x.dtype(), x.device());
    copy_elements(y, x, kName, x.dtype());
    return y;
  }
  static void backward(Backward& ctx, const Params&) { ctx.set(0, ctx.grad()); }
};

struct Transfer {
  static constexpr const char* kName = "to";
  struct Params {
    Device from, to;
    bool non_blocking;
  };
  static Tensor forward(const Params& p, const Tensor& x) { return transfer(x, p.to, p.non_blocking); }
  static void backward(Backward& ctx, const Params& p) { ctx.set(0, to(ctx.grad(), p.from)); }
};

struct Copy {
  static constexpr const char* kName = "copy_";
  static constexpr bool kAnyDevice = true;
  struct Params {
    Device from;
    bool non_blocking;
  };
  static void forward_into(Tensor& y, const Params& p, const Tensor&, const Tensor& source) {
    copy_elements(y, source, kName, y.dtype(), p.non_blocking);
  }
  static void backward(Backward& ctx, const Params& p) {
    const Tensor& grad_y = ctx.grad();
    if (ctx.needs(0)) ctx.set(0, zeros(grad_y.sizes(), grad_y.dtype(), grad_y.device()));
    if (ctx.needs(1)) ctx.set(1, to(grad_y, p.from));
  }
};

}  // namespace

Tensor clone(const Tensor& self) { return call<Clone>({}, self); }

Tensor copy_(const Tensor& self, const Tensor& src, bool non_blocking) {
  if (self.is_same(src)) {
    if (GradMode::is_enabled() && needs_grad(self)) check_recordable(self, "copy_");
    return self;
  }
  return call_inplace<Copy>({src.device(), non_blocking}, self, src);
}

Tensor to(const Tensor& self, DType dtype) { return self.dtype() == dtype ? self : call<To>({dtype}, self); }

Tensor to(const Tensor& self, Device device, bool non_blocking) {
  if (self.device() == device) return self;
  // Raises where the device does not exist, before anything is copied.
  if (!device.is_cpu()) (void)backend(device);
  return call<Transfer>({self.device(), device, non_blocking}, self);
}

Tensor contiguous(const Tensor& self) { return self.is_contiguous() ? self : call<Contiguous>({}, self); }

namespace {

// The engine chooses the order of memory by itself, so a memory format is a hint that changes no result.
using Hint = std::optional<std::string_view>;

Tensor clone_schema(const Tensor& self, Hint) { return clone(self); }
Tensor contiguous_schema(const Tensor& self, std::string_view) { return contiguous(self); }

bool is_contiguous(const Tensor& self, std::string_view format) {
  if (format != "channels_last" && format != "channels_last_3d") return self.is_contiguous();
  const int64_t rank = format == "channels_last" ? 4 : 5;
  if (self.dim() != rank) return false;
  const Dims wanted = channels_last_strides(self.sizes());
  bool ordered = true;
  for (size_t i = 0; i < wanted.size(); ++i)
    ordered &= self.sizes()[i] == 1 || self.strides()[i] == wanted[i];
  return ordered || self.impl()->is_hidden();
}

Tensor to_device(const Tensor& self, std::optional<Device> device, std::optional<DType> dtype,
                 bool non_blocking, bool copy, Hint) {
  const Device target = device.value_or(self.device());
  const DType wanted = dtype.value_or(self.dtype());
  if (target == self.device()) return self.dtype() == wanted && copy ? clone(self) : to(self, wanted);
  // The narrower of both dtypes moves.
  if (item_size(wanted) < item_size(self.dtype())) return to(to(self, wanted), target, non_blocking);
  return to(to(self, target, non_blocking), wanted);
}

Tensor to_dtype(const Tensor& self, DType dtype, bool non_blocking, bool copy, Hint hint) {
  return to_device(self, std::nullopt, dtype, non_blocking, copy, hint);
}

Tensor to_other(const Tensor& self, const Tensor& other, bool non_blocking, bool copy, Hint hint) {
  return to_device(self, other.device(), other.dtype(), non_blocking, copy, hint);
}

Tensor type_as(const Tensor& self, const Tensor& other) {
  return to_other(self, other, false, false, std::nullopt);
}
Tensor cpu_schema(const Tensor& self, Hint) { return to(self, kCPU); }

template <DType kDType>
Tensor cast(const Tensor& self, Hint) {
  return to(self, kDType);
}

template <DType kDType>
void add_cast(Registry& registry, const char* method) {
  registry.add<&cast<kDType>>(
      std::string("Tensor.") + method + "(Tensor self, memory_format? memory_format=None) -> Tensor",
      std::string("This tensor as ") + name(kDType) + "; itself if it already is.");
}

}  // namespace

namespace {
Tensor detach(const Tensor& self) { return self.detach(); }
}  // namespace

void register_copy(Registry& registry) {
  for (int from = 0; from < kNumDTypes; ++from) {
    for (int to = 0; to < kNumDTypes; ++to) {
      const LoopFn loop = cast_loop(static_cast<DType>(from), static_cast<DType>(to));
      copy_forward[to].set(DeviceType::kCPU, static_cast<DType>(from), loop);
    }
  }
  registry.add<&detach>("detach(Tensor self) -> Tensor", "The same memory outside the graph.");
  registry.add<&copy_>("Tensor.copy_(Tensor self, Tensor other, bool non_blocking=False) -> Tensor",
                       "Writes `src`, broadcast and converted, over this tensor.");
  registry.add<&clone_schema>("clone(Tensor self, *, memory_format? memory_format=None) -> Tensor",
                              "A copy with its own memory.");
  registry.add<&contiguous_schema>(
      "Tensor.contiguous(Tensor self, memory_format memory_format='contiguous_format') -> Tensor",
      "This tensor with row-major strides; itself if it already has them.");
  registry.add<&is_contiguous>(
      "Tensor.is_contiguous(Tensor self, memory_format memory_format='contiguous_format') -> bool",
      "Whether the elements lie densely in the order of the memory format.");
  registry.add<&to_dtype>(
      "Tensor.to(Tensor self, dtype dtype, bool non_blocking=False, bool copy=False, *, "
      "memory_format? memory_format=None) -> Tensor",
      "This tensor as `dtype`; itself if it already is, unless `copy` is set.");
  registry.add<&to_device>(
      "Tensor.to(Tensor self, device? device=None, dtype? dtype=None, bool non_blocking=False, bool "
      "copy=False, *, "
      "memory_format? memory_format=None) -> Tensor",
      "This tensor on `device` as `dtype`; itself if it already is, unless `copy` is set.");
  registry.add<&to_other>(
      "Tensor.to(Tensor self, Tensor other, bool non_blocking=False, bool copy=False, *, "
      "memory_format? memory_format=None) -> Tensor",
      "This tensor with the dtype and device of `other`.");
  registry.add<&type_as>("Tensor.type_as(Tensor self, Tensor other) -> Tensor",
                         "This tensor with the dtype of `other`.");
  registry.add<&cpu_schema>("Tensor.cpu(Tensor self, memory_format? memory_format=None) -> Tensor",
                            "This tensor on the CPU; itself if it already is.");
  add_cast<kFloat32>(registry, "float");
  add_cast<kFloat64>(registry, "double");
  add_cast<kFloat16>(registry, "half");
  add_cast<kBFloat16>(registry, "bfloat16");
  add_cast<kInt32>(registry, "int");
  add_cast<kInt64>(registry, "long");
  add_cast<kInt16>(registry, "short");
  add_cast<kInt8>(registry, "char");
  add_cast<kUInt8>(registry, "byte");
  add_cast<kBool>(registry, "bool");
}

}  // namespace opsin

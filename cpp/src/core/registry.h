// The schemas of all ops: what the Python functions, stubs, profiler, tracer and docs are made from.
//
// Grammar, after PyTorch's: "nn.functional.conv2d(Tensor input, Tensor? bias=None, int[2] stride=1, *, dtype?
// dtype=None)
// -> Tensor". Types: Tensor, Operand (a tensor or a number), Tensor[], int, int[], int[N] (an int counts for
// all N), int?[N] (entries may be None), float, bool, Number, str, dtype, device, Generator, memory_format;
// `?` makes one optional. `int[]... size` also takes its entries as separate arguments. Results: `-> Tensor`,
// `-> (Tensor values, Tensor indices)` (named), `-> Tensor[]`,
// `-> int`, `-> bool`, `-> ()`. A dotted prefix is the namespace; "Tensor." makes a method only. A first
// argument called `self` makes a method besides the function. Two schemas of one name are overloads, tried in
// order.
#pragma once

#include <array>
#include <memory>
#include <string_view>
#include <tuple>
#include <variant>

#include <opsin/tensor.h>

namespace opsin {

class Generator;

enum class ArgType : uint8_t {
  kTensor,
  kOperand,
  kTensorList,
  kInt,
  kIntList,
  kFloat,
  kBoolean,
  kNumber,
  kString,
  kDType,
  kDevice,
  kGenerator,
  kMemoryFormat,
};

/// An argument or result on its way between a caller that has no C++ types and an op.
using Value = std::variant<std::monostate, Tensor, TensorList, int64_t, double, bool, Scalar, Dims,
                           std::string, DType, Device, Generator*>;

/// What None is in a list of integers.
inline constexpr int64_t kNoneEntry = INT64_MIN;

struct Argument {
  std::string name;
  ArgType type = ArgType::kTensor;
  bool optional = false;
  bool variadic = false;
  bool keyword_only = false;
  bool has_default = false;
  bool none_entries = false;  ///< For int?[N]: entries may be None, which reads as kNoneEntry.
  int list_size = 0;          ///< For int[N]: how often one int counts.
  Value default_value;
  std::string default_text;
};

struct Schema {
  std::string text;
  std::string space;  ///< "", "nn.functional", "Tensor", ...
  std::string name;
  std::vector<Argument> arguments;
  std::vector<std::string> result_names;  ///< For named results.
  std::string result;
  std::string doc;
  void (*call)(std::span<Value> arguments, Value& result) = nullptr;

  bool is_method() const { return !arguments.empty() && arguments[0].name == "self"; }
  bool is_function() const { return space != "Tensor"; }
};

namespace detail {

template <class T>
struct Unbox;

template <ArgType... kTypes>
struct Accepts {
  static bool accepts(ArgType type) { return ((type == kTypes) || ...); }
};

template <>
struct Unbox<Tensor> : Accepts<ArgType::kTensor, ArgType::kOperand> {
  static const Tensor& get(const Value& value) {
    static const Tensor undefined;
    const Tensor* tensor = std::get_if<Tensor>(&value);
    return tensor ? *tensor : undefined;
  }
};
template <>
struct Unbox<TensorSpan> : Accepts<ArgType::kTensorList> {
  static TensorSpan get(const Value& value) { return std::get<TensorList>(value); }
};
template <>
struct Unbox<int64_t> : Accepts<ArgType::kInt> {
  static int64_t get(const Value& value) { return std::get<int64_t>(value); }
};
template <>
struct Unbox<double> : Accepts<ArgType::kFloat> {
  static double get(const Value& value) { return std::get<double>(value); }
};
template <>
struct Unbox<bool> : Accepts<ArgType::kBoolean> {
  static bool get(const Value& value) { return std::get<bool>(value); }
};
template <>
struct Unbox<Scalar> : Accepts<ArgType::kNumber> {
  static const Scalar& get(const Value& value) { return std::get<Scalar>(value); }
};
template <>
struct Unbox<IntSpan> : Accepts<ArgType::kIntList> {
  static IntSpan get(const Value& value) { return std::get<Dims>(value); }
};
template <>
struct Unbox<std::string_view> : Accepts<ArgType::kString, ArgType::kMemoryFormat> {
  static std::string_view get(const Value& value) { return std::get<std::string>(value); }
};
template <>
struct Unbox<DType> : Accepts<ArgType::kDType> {
  static DType get(const Value& value) { return std::get<DType>(value); }
};
template <>
struct Unbox<Device> : Accepts<ArgType::kDevice> {
  static Device get(const Value& value) { return std::get<Device>(value); }
};
template <>
struct Unbox<Generator*> : Accepts<ArgType::kGenerator> {
  static Generator* get(const Value& value) {
    return std::holds_alternative<std::monostate>(value) ? nullptr : std::get<Generator*>(value);
  }
};
template <class T>
struct Unbox<std::optional<T>> {
  static bool accepts(ArgType type) { return Unbox<T>::accepts(type); }
  static std::optional<T> get(const Value& value) {
    if (std::holds_alternative<std::monostate>(value)) return std::nullopt;
    return Unbox<T>::get(value);
  }
};

inline void box(Value& result, Tensor value) { result = std::move(value); }
inline void box(Value& result, TensorList value) { result = std::move(value); }
inline void box(Value& result, bool value) { result = value; }
inline void box(Value& result, int64_t value) { result = value; }
inline void box(Value& result, double value) { result = value; }
inline void box(Value& result, const Scalar& value) { result = value; }
inline void box(Value& result, Dims value) { result = std::move(value); }
inline void box(Value& result, DType value) { result = value; }
template <size_t N>
void box(Value& result, std::array<Tensor, N> value) {
  result = TensorList(std::make_move_iterator(value.begin()), std::make_move_iterator(value.end()));
}

template <class F>
struct Signature;
template <class R, class... Args>
struct Signature<R (*)(Args...)> {
  static constexpr size_t kCount = sizeof...(Args);

  static bool accepts(const std::vector<Argument>& arguments) {
    if (arguments.size() != kCount) return false;
    size_t i = 0;
    return (Unbox<std::decay_t<Args>>::accepts(arguments[i++].type) && ...);
  }

  template <auto kFunction>
  static void call(std::span<Value> arguments, Value& result) {
    [&]<size_t... kIndex>(std::index_sequence<kIndex...>) {
      if constexpr (std::is_void_v<R>) {
        kFunction(Unbox<std::decay_t<Args>>::get(arguments[kIndex])...);
      } else {
        box(result, kFunction(Unbox<std::decay_t<Args>>::get(arguments[kIndex])...));
      }
    }(std::make_index_sequence<kCount>());
  }
};

}  // namespace detail

class OPSIN_API Registry {
 public:
  /// Adds `kFunction` under `schema`; the types of both must agree. Use a cast to pick a C++ overload.
  template <auto kFunction>
  void add(std::string_view schema, std::string_view doc) {
    using Types = detail::Signature<decltype(kFunction)>;
    Schema& added = parse(schema, doc);
    added.call = &Types::template call<kFunction>;
    if (!Types::accepts(added.arguments)) raise_mismatch(schema);
  }

  const std::vector<std::unique_ptr<Schema>>& schemas() const { return schemas_; }

 private:
  Schema& parse(std::string_view text, std::string_view doc);
  [[noreturn]] static void raise_mismatch(std::string_view schema);

  std::vector<std::unique_ptr<Schema>> schemas_;
};

/// All ops of the engine; filled on first use.
OPSIN_API const Registry& registry();

}  // namespace opsin

#include "core/registry.h"

#include <charconv>
#include <cstdlib>

#include "core/dispatch.h"
#include "core/kernel.h"

namespace opsin {

void register_all_ops(Registry& registry);

const Registry& registry() {
  static const Registry* const registry = [] {
    auto* made = new Registry;
    register_all_ops(*made);
    return made;
  }();
  return *registry;
}

void ensure_ops_registered() { (void)registry(); }

namespace detail {
void raise_unsupported(const char* op, DType dtype) {
  raise<Error>(op, ": \"", op, "\" not implemented for '", name(dtype), "'");
}

void raise_no_kernel(const char* op, Device device, DType dtype, std::span<const bool, kNumDTypes> have) {
  std::string list;
  for (int i = 0; i < kNumDTypes; ++i) {
    if (!have[static_cast<size_t>(i)]) continue;
    if (!list.empty()) list += ", ";
    list += name(static_cast<DType>(i));
  }
  raise<Error>(op, ": no ", device.is_cpu() ? "cpu" : "cuda", " kernel for ", name(dtype),
               " (have: ", list.empty() ? "none" : list, "); \"", op, "\" not implemented for '", name(dtype),
               "'");
}
}  // namespace detail

namespace {

/// Reads a schema left to right. Schemas are part of the program, so a bad one is a bug and raises at
/// start-up.
class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text), rest_(text) {}

  bool take(std::string_view token) {
    skip();
    if (!rest_.starts_with(token)) return false;
    rest_.remove_prefix(token.size());
    return true;
  }
  void expect(std::string_view token) {
    if (!take(token)) fail(token);
  }
  std::string_view word() {
    skip();
    size_t n = 0;
    while (n < rest_.size() &&
           (std::isalnum(static_cast<unsigned char>(rest_[n])) || rest_[n] == '_' || rest_[n] == '.')) {
      ++n;
    }
    // "..." after a type is punctuation, not part of a name.
    if (const size_t dots = rest_.substr(0, n).find(".."); dots != std::string_view::npos) n = dots;
    if (n == 0) fail("a name");
    const std::string_view result = rest_.substr(0, n);
    rest_.remove_prefix(n);
    return result;
  }
  /// Everything up to `end` or a comma outside brackets.
  std::string_view until(char end) {
    skip();
    int depth = 0;
    size_t n = 0;
    while (n < rest_.size() && (depth > 0 || (rest_[n] != ',' && rest_[n] != end))) {
      depth += rest_[n] == '[' || rest_[n] == '(' ? 1 : rest_[n] == ']' || rest_[n] == ')' ? -1 : 0;
      ++n;
    }
    const std::string_view result = rest_.substr(0, n);
    rest_.remove_prefix(n);
    return result;
  }
  std::string_view rest() {
    skip();
    return rest_;
  }
  [[noreturn]] void fail(std::string_view wanted) const {
    detail::raise<Error>("schema: expected ", wanted, " at \"", rest_, "\" in \"", text_, "\"");
  }

 private:
  void skip() {
    while (rest_.starts_with(' ')) rest_.remove_prefix(1);
  }

  std::string_view text_;
  std::string_view rest_;
};

ArgType arg_type(std::string_view word, bool list, const Parser& parser) {
  if (word == "Tensor") return list ? ArgType::kTensorList : ArgType::kTensor;
  if (word == "int") return list ? ArgType::kIntList : ArgType::kInt;
  if (word == "Operand") return ArgType::kOperand;
  if (word == "float") return ArgType::kFloat;
  if (word == "bool") return ArgType::kBoolean;
  if (word == "Number") return ArgType::kNumber;
  if (word == "str") return ArgType::kString;
  if (word == "dtype") return ArgType::kDType;
  if (word == "device") return ArgType::kDevice;
  if (word == "Generator") return ArgType::kGenerator;
  if (word == "memory_format") return ArgType::kMemoryFormat;
  parser.fail("a type");
}

template <class T>
T number(std::string_view text) {
  T value{};
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

Value default_value(const Argument& argument, std::string_view text, const Parser& parser) {
  if (text == "None") return std::monostate();
  switch (argument.type) {
    case ArgType::kInt:
      return number<int64_t>(text);
    case ArgType::kFloat:
      return std::strtod(std::string(text).c_str(), nullptr);
    case ArgType::kBoolean:
      return text == "True";
    case ArgType::kNumber:
    case ArgType::kOperand:
      if (text == "True" || text == "False") return Scalar(text == "True");
      if (text.find_first_of(".einf") != std::string_view::npos) {
        return Scalar(std::strtod(std::string(text).c_str(), nullptr));
      }
      return Scalar(number<int64_t>(text));
    case ArgType::kString:
    case ArgType::kMemoryFormat:
      return std::string(text.substr(1, text.size() - 2));
    case ArgType::kIntList: {
      if (!text.starts_with('[') && !text.starts_with('(')) {
        return Dims(static_cast<size_t>(std::max(argument.list_size, 1)), number<int64_t>(text));
      }
      Dims values;
      text = text.substr(1, text.size() - 2);
      while (!text.empty()) {
        const size_t comma = std::min(text.find(','), text.size());
        values.push_back(number<int64_t>(text.substr(text.find_first_not_of(' '), comma)));
        text.remove_prefix(std::min(comma + 1, text.size()));
      }
      return values;
    }
    default:
      parser.fail("a default that this type can have");
  }
}

Argument parse_argument(Parser& parser) {
  Argument argument;
  const std::string_view word = parser.word();
  bool list = false;
  argument.none_entries = parser.take("?[");
  if (argument.none_entries || parser.take("[")) {
    list = true;
    if (!parser.take("]")) {
      argument.list_size = number<int>(parser.word());
      parser.expect("]");
    }
  }
  argument.type = arg_type(word, list, parser);
  argument.optional = parser.take("?");
  argument.variadic = parser.take("...");
  argument.name = parser.word();
  if (parser.take("=")) {
    argument.has_default = true;
    argument.default_text = parser.until(')');
    argument.default_value = default_value(argument, argument.default_text, parser);
  }
  return argument;
}

}  // namespace

Schema& Registry::parse(std::string_view text, std::string_view doc) {
  auto schema = std::make_unique<Schema>();
  schema->text = text;
  schema->doc = doc;
  Parser parser(text);
  const std::string_view path = parser.word();
  const size_t dot = path.rfind('.');
  schema->space = dot == std::string_view::npos ? "" : path.substr(0, dot);
  schema->name = dot == std::string_view::npos ? path : path.substr(dot + 1);
  parser.expect("(");
  bool keyword_only = false;
  for (bool first = true; !parser.take(")"); first = false) {
    if (!first) parser.expect(",");
    if (parser.take("*")) {
      keyword_only = true;
      continue;
    }
    schema->arguments.push_back(parse_argument(parser));
    schema->arguments.back().keyword_only = keyword_only;
  }
  parser.expect("->");
  schema->result = parser.rest();
  if (parser.take("(")) {
    for (bool first = true; !parser.take(")"); first = false) {
      if (!first) parser.expect(",");
      parser.expect("Tensor");
      if (!parser.rest().starts_with(',') && !parser.rest().starts_with(')')) {
        schema->result_names.emplace_back(parser.word());
      }
    }
  }
  schemas_.push_back(std::move(schema));
  return *schemas_.back();
}

void Registry::raise_mismatch(std::string_view schema) {
  detail::raise<Error>("schema: the types of the function don't agree with \"", schema, "\"");
}

}  // namespace opsin

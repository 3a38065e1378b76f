// The part of JSON that checkpoint headers use.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace opsin::json {

struct Value;
using Object = std::vector<std::pair<std::string, Value>>;
using Array = std::vector<Value>;

/// A string, a non-negative integer, an array or an object; anything else is not part of a header.
struct Value {
  std::variant<std::string, uint64_t, Array, Object> data;
};

/// Parses a whole document; FileError, naming `what` and the position, when it is not of the accepted part
/// of JSON.
Value parse(std::string_view text, const std::string& what);
/// Appends `text` as a JSON string.
void append_string(std::string& out, std::string_view text);

}  // namespace opsin::json

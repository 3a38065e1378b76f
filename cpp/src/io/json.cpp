#include "io/json.h"

#include <opsin/error.h>

namespace opsin::json {

namespace {

/// Deeper nesting than any header has; a limit, because the parser recurses.
constexpr int kMaxDepth = 16;

class Parser {
 public:
  Parser(std::string_view text, const std::string& what) : text_(text), what_(what) {}

  Value document() {
    Value value = parse_value(0);
    skip();
    if (position_ != text_.size()) fail("the end of the document");
    return value;
  }

 private:
  [[noreturn]] void fail(const char* wanted) const {
    detail::raise<FileError>(what_, ": expected ", wanted, " at byte ", position_,
                             " of the header (the file is damaged)");
  }
  char peek() const { return position_ < text_.size() ? text_[position_] : '\0'; }
  void skip() {
    while (peek() == ' ' || peek() == '\t' || peek() == '\n' || peek() == '\r') ++position_;
  }
  bool take(char c) {
    skip();
    if (peek() != c || position_ >= text_.size()) return false;
    ++position_;
    return true;
  }

  Value parse_value(int depth) {
    if (depth > kMaxDepth) fail("less nesting");
    skip();
    if (peek() == '"') return {parse_string()};
    if (peek() >= '0' && peek() <= '9') return {parse_number()};
    if (take('[')) {
      Array items;
      if (take(']')) return {std::move(items)};
      do {
        items.push_back(parse_value(depth + 1));
      } while (take(','));
      if (!take(']')) fail("']'");
      return {std::move(items)};
    }
    if (take('{')) {
      Object members;
      if (take('}')) return {std::move(members)};
      do {
        skip();
        if (peek() != '"') fail("a name in quotes");
        std::string name = parse_string();
        if (!take(':')) fail("':'");
        members.emplace_back(std::move(name), parse_value(depth + 1));
      } while (take(','));
      if (!take('}')) fail("'}'");
      return {std::move(members)};
    }
    fail("a string, a non-negative integer, an array or an object");
  }

  uint64_t parse_number() {
    uint64_t value = 0;
    while (peek() >= '0' && peek() <= '9') {
      const auto digit = static_cast<uint64_t>(peek() - '0');
      if (__builtin_mul_overflow(value, uint64_t{10}, &value) ||
          __builtin_add_overflow(value, digit, &value)) {
        fail("a 64-bit integer");
      }
      ++position_;
    }
    return value;
  }

  uint32_t parse_hex4() {
    uint32_t code = 0;
    for (int i = 0; i < 4; ++i, ++position_) {
      const char c = peek();
      const int digit = c >= '0' && c <= '9'   ? c - '0'
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                               : -1;
      if (digit < 0) fail("four hexadecimal digits");
      code = code * 16 + static_cast<uint32_t>(digit);
    }
    return code;
  }

  static void append_utf8(std::string& out, uint32_t code) {
    const auto tail = [&](int shift) { out += static_cast<char>(0x80 | (code >> shift & 0x3f)); };
    if (code < 0x80) {
      out += static_cast<char>(code);
    } else if (code < 0x800) {
      out += static_cast<char>(0xc0 | code >> 6);
      tail(0);
    } else if (code < 0x10000) {
      out += static_cast<char>(0xe0 | code >> 12);
      tail(6);
      tail(0);
    } else {
      out += static_cast<char>(0xf0 | code >> 18);
      tail(12);
      tail(6);
      tail(0);
    }
  }

  std::string parse_string() {
    ++position_;
    std::string result;
    while (true) {
      if (position_ >= text_.size()) fail("the closing quote");
      const char c = text_[position_++];
      if (c == '"') return result;
      if (static_cast<unsigned char>(c) < 0x20) fail("no control character in a string");
      if (c != '\\') {
        result += c;
        continue;
      }
      const char escape = peek();
      ++position_;
      switch (escape) {
        case '"':
        case '\\':
        case '/':
          result += escape;
          break;
        case 'b':
          result += '\b';
          break;
        case 'f':
          result += '\f';
          break;
        case 'n':
          result += '\n';
          break;
        case 'r':
          result += '\r';
          break;
        case 't':
          result += '\t';
          break;
        case 'u': {
          uint32_t code = parse_hex4();
          if (code >= 0xd800 && code < 0xdc00) {
            if (peek() != '\\' || position_ + 1 >= text_.size() || text_[position_ + 1] != 'u')
              fail("a low surrogate");
            position_ += 2;
            const uint32_t low = parse_hex4();
            if (low < 0xdc00 || low > 0xdfff) fail("a low surrogate");
            code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
          } else if (code >= 0xdc00 && code < 0xe000) {
            fail("a high surrogate first");
          }
          append_utf8(result, code);
          break;
        }
        default:
          fail("a known escape");
      }
    }
  }

  std::string_view text_;
  const std::string& what_;
  size_t position_ = 0;
};

}  // namespace

Value parse(std::string_view text, const std::string& what) { return Parser(text, what).document(); }

void append_string(std::string& out, std::string_view text) {
  constexpr const char* kHex = "0123456789abcdef";
  out += '"';
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (byte < 0x20) {
      out += "\\u00";
      out += kHex[byte >> 4];
      out += kHex[byte & 15];
    } else {
      out += c;
    }
  }
  out += '"';
}

}  // namespace opsin::json

// Errors of the engine. Every message has the form `op: rule, what was received (likely fix)`.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

#include <opsin/api.h>

namespace opsin {

/// Base of all errors that the engine raises; a RuntimeError in Python.
class OPSIN_API Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
  ~Error() override;
};

/// A size, rank or broadcast that cannot work. In Python both a RuntimeError and a ValueError.
class OPSIN_API ShapeError : public Error {
 public:
  using Error::Error;
  ~ShapeError() override;
};

/// A value outside its domain (a negative stride, an unknown mode). ValueError in Python.
class OPSIN_API ValueError : public Error {
 public:
  using Error::Error;
  ~ValueError() override;
};

/// A wrong dtype or kind of argument. TypeError in Python.
class OPSIN_API TypeError : public Error {
 public:
  using Error::Error;
  ~TypeError() override;
};

/// An index or dimension out of range. IndexError in Python.
class OPSIN_API IndexError : public Error {
 public:
  using Error::Error;
  ~IndexError() override;
};

/// No memory left, with a report of what is in use. MemoryError in Python.
class OPSIN_API OutOfMemoryError : public Error {
 public:
  using Error::Error;
  ~OutOfMemoryError() override;
};

/// A file that cannot be read or written. OSError in Python.
class OPSIN_API FileError : public Error {
 public:
  using Error::Error;
  ~FileError() override;
};

namespace detail {
/// Joins its arguments as they print with `<<`.
template <class... Args>
std::string concat(const Args&... args) {
  std::ostringstream stream;
  (stream << ... << args);
  return stream.str();
}

template <class E, class... Args>
[[noreturn, gnu::cold, gnu::noinline]] void raise(const Args&... args) {
  throw E(concat(args...));
}
}  // namespace detail

}  // namespace opsin

/// Raises `E` with the joined message unless `condition` holds.
#define OPSIN_CHECK(E, condition, ...) \
  (__builtin_expect(!!(condition), 1) ? (void)0 : ::opsin::detail::raise<::opsin::E>(__VA_ARGS__))

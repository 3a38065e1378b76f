// The safetensors format: 8 bytes of header length (little-endian), a JSON header {"name": {"dtype", "shape",
// "data_offsets": [begin, end]}, "__metadata__": {...}}, then the data.
#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <set>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <opsin/io.h>
#include <opsin/ops/copy.h>

#include "io/json.h"

namespace opsin {

static_assert(std::endian::native == std::endian::little, "the format is little-endian");

namespace {

/// The limit of the format's reference implementation.
constexpr uint64_t kMaxHeader = 100'000'000;

constexpr const char* kTypeNames[kNumDTypes] = {"BOOL", "U8",   "I8",  "I16", "I32", "I64",
                                                "F16",  "BF16", "F32", "F64", "C64", "C128"};

class File {
 public:
  /// `label` starts every error: the op and the file as the user knows it.
  File(std::string label, const std::string& path, int flags, mode_t mode = 0)
      : label_(std::move(label)), descriptor_(::open(path.c_str(), flags | O_CLOEXEC, mode)) {
    if (descriptor_ < 0) fail("open");
  }
  ~File() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  uint64_t size() const {
    struct stat status{};
    if (::fstat(descriptor_, &status) != 0) fail("stat");
    OPSIN_CHECK(FileError, S_ISREG(status.st_mode), label_,
                ": expected a regular file (the path names something else)");
    return static_cast<uint64_t>(status.st_size);
  }
  void read(void* data, size_t bytes) const {
    auto* to = static_cast<char*>(data);
    while (bytes > 0) {
      const ssize_t n = ::read(descriptor_, to, std::min<size_t>(bytes, 1 << 30));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) fail("read");
      OPSIN_CHECK(FileError, n > 0, label_, ": the file ended while it was read (somebody is writing to it)");
      to += n;
      bytes -= static_cast<size_t>(n);
    }
  }
  void write(const void* data, size_t bytes) const {
    const auto* from = static_cast<const char*>(data);
    while (bytes > 0) {
      const ssize_t n = ::write(descriptor_, from, std::min<size_t>(bytes, 1 << 30));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) fail("write");
      from += n;
      bytes -= static_cast<size_t>(n);
    }
  }
  /// Waits until the data is on disk; a full disk may show only here.
  void finish() {
    if (::fsync(descriptor_) != 0 && errno != EINVAL) fail("write");
    const int descriptor = std::exchange(descriptor_, -1);
    if (::close(descriptor) != 0) fail("close");
  }

 private:
  [[noreturn]] void fail(const char* action) const {
    detail::raise<FileError>(label_, ": cannot ", action, " the file (", std::strerror(errno), ")");
  }

  std::string label_;
  int descriptor_;
};

/// Removes a half-written file unless it was renamed.
class TemporaryFile {
 public:
  explicit TemporaryFile(const std::string& target) : path_(target + ".tmp-" + std::to_string(::getpid())) {}
  ~TemporaryFile() {
    if (!path_.empty()) ::unlink(path_.c_str());
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;

  const std::string& path() const { return path_; }
  void rename_to(const std::string& target) {
    OPSIN_CHECK(FileError, ::rename(path_.c_str(), target.c_str()) == 0, "save: ", target,
                ": cannot replace the file (", std::strerror(errno), ")");
    path_.clear();
  }

 private:
  std::string path_;
};

void append_entry(std::string& header, const std::string& name, const Tensor& tensor, uint64_t begin,
                  uint64_t end) {
  json::append_string(header, name);
  header += std::string(":{\"dtype\":\"") + kTypeNames[static_cast<int>(tensor.dtype())] + "\",\"shape\":[";
  for (int64_t i = 0; i < tensor.dim(); ++i) {
    if (i > 0) header += ',';
    header += std::to_string(tensor.size(i));
  }
  header += "],\"data_offsets\":[" + std::to_string(begin) + "," + std::to_string(end) + "]}";
}

template <class T>
const T& get(const json::Value& value, const std::string& path, const std::string& where,
             const char* wanted) {
  const T* data = std::get_if<T>(&value.data);
  OPSIN_CHECK(FileError, data, path, ": expected ", wanted, " for ", where, " (the file is damaged)");
  return *data;
}

struct Entry {
  std::string name;
  DType dtype;
  Dims sizes;
  uint64_t begin, end;
};

Entry read_entry(const std::string& name, const json::Value& value, const std::string& path) {
  Entry entry{name, kFloat32, {}, 0, 0};
  const std::string where = "tensor '" + name + "'";
  bool has_type = false, has_shape = false, has_offsets = false;
  for (const auto& [key, field] : get<json::Object>(value, path, where, "an object")) {
    if (key == "dtype") {
      const auto& text = get<std::string>(field, path, "dtype of " + where, "a string");
      const auto* found = std::find(std::begin(kTypeNames), std::end(kTypeNames), text);
      OPSIN_CHECK(FileError, found != std::end(kTypeNames), path, ": ", where, " has the unknown dtype '",
                  text, "' (the file is damaged or of a newer kind)");
      entry.dtype = static_cast<DType>(found - std::begin(kTypeNames));
      has_type = true;
    } else if (key == "shape") {
      for (const json::Value& size : get<json::Array>(field, path, "shape of " + where, "an array")) {
        const uint64_t number = get<uint64_t>(size, path, "shape of " + where, "integers");
        OPSIN_CHECK(FileError, number <= INT64_MAX, path, ": ", where, " has the impossible size ", number,
                    " (the file is damaged)");
        entry.sizes.push_back(static_cast<int64_t>(number));
      }
      has_shape = true;
    } else if (key == "data_offsets") {
      const auto& offsets = get<json::Array>(field, path, "data_offsets of " + where, "an array");
      OPSIN_CHECK(FileError, offsets.size() == 2, path, ": expected two data_offsets for ", where, ", got ",
                  offsets.size(), " (the file is damaged)");
      entry.begin = get<uint64_t>(offsets[0], path, "data_offsets of " + where, "integers");
      entry.end = get<uint64_t>(offsets[1], path, "data_offsets of " + where, "integers");
      has_offsets = true;
    }
  }
  OPSIN_CHECK(FileError, has_type && has_shape && has_offsets, path, ": ", where,
              " lacks one of dtype, shape and data_offsets (the file is damaged)");
  return entry;
}

/// The data must be covered once and whole, so that a file holds nothing hidden and nothing is read twice.
void check_layout(std::vector<Entry>& entries, uint64_t data_bytes, const std::string& path) {
  std::stable_sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.end < b.end;
  });
  uint64_t next = 0;
  for (const Entry& entry : entries) {
    int64_t bytes = 0;
    try {
      bytes = count_elements(entry.sizes);
    } catch (const ShapeError&) {
      bytes = -1;
    }
    OPSIN_CHECK(
        FileError,
        bytes >= 0 && !__builtin_mul_overflow(bytes, static_cast<int64_t>(item_size(entry.dtype)), &bytes),
        path, ": tensor '", entry.name, "' has the impossible shape ", str(entry.sizes),
        " (the file is damaged)");
    OPSIN_CHECK(FileError, entry.begin == next && entry.end >= entry.begin && entry.end <= data_bytes, path,
                ": tensor '", entry.name, "' has data_offsets [", entry.begin, ", ", entry.end,
                "], expected to start at ", next, " and end within ", data_bytes,
                " bytes of data (the file is truncated or damaged)");
    OPSIN_CHECK(FileError, entry.end - entry.begin == static_cast<uint64_t>(bytes), path, ": tensor '",
                entry.name, "' of ", opsin::name(entry.dtype), " and shape ", str(entry.sizes), " needs ",
                bytes, " bytes, its data_offsets give ", entry.end - entry.begin, " (the file is damaged)");
    next = entry.end;
  }
  OPSIN_CHECK(FileError, next == data_bytes, path, ": ", data_bytes - next,
              " bytes of data belong to no tensor (the file is damaged)");
}

}  // namespace

void save_safetensors(const std::string& path, const std::vector<std::pair<std::string, Tensor>>& tensors,
                      const std::map<std::string, std::string>& metadata) {
  std::string header = "{";
  if (!metadata.empty()) {
    header += "\"__metadata__\":{";
    for (const auto& [key, text] : metadata) {
      if (header.back() != '{') header += ',';
      json::append_string(header, key);
      header += ':';
      json::append_string(header, text);
    }
    header += '}';
  }
  std::vector<std::pair<std::string, Tensor>> dense;
  std::set<std::string> names;
  for (const auto& [name, tensor] : tensors) {
    OPSIN_CHECK(ValueError, tensor.defined(), "save: tensor '", name, "' is undefined");
    OPSIN_CHECK(ValueError, name != "__metadata__" && names.insert(name).second, "save: the name '", name,
                name == "__metadata__" ? "' is reserved" : "' appears twice");
    dense.emplace_back(name, contiguous(to(tensor.detach(), kCPU)));
  }
  // Large elements first: with an aligned start, every tensor is then aligned to its element size.
  std::stable_sort(dense.begin(), dense.end(), [](const auto& a, const auto& b) {
    return item_size(a.second.dtype()) > item_size(b.second.dtype());
  });
  uint64_t offset = 0;
  for (const auto& [name, tensor] : dense) {
    const uint64_t bytes = static_cast<uint64_t>(tensor.numel()) * item_size(tensor.dtype());
    if (header.size() > 1) header += ',';
    append_entry(header, name, tensor, offset, offset + bytes);
    offset += bytes;
  }
  header += '}';
  header.resize((header.size() + 7) / 8 * 8, ' ');
  OPSIN_CHECK(ValueError, header.size() <= kMaxHeader, "save: the header of ", path, " would have ",
              header.size(), " bytes, more than the format allows");

  TemporaryFile temporary(path);
  File file("save: " + path, temporary.path(), O_WRONLY | O_CREAT | O_TRUNC, 0666);
  const uint64_t length = header.size();
  file.write(&length, sizeof(length));
  file.write(header.data(), header.size());
  for (const auto& [name, tensor] : dense) {
    file.write(tensor.impl()->data(), static_cast<size_t>(tensor.numel()) * item_size(tensor.dtype()));
  }
  file.finish();
  temporary.rename_to(path);
}

SafetensorsFile load_safetensors(const std::string& file_path) {
  const std::string path = "load: " + file_path;
  const File file(path, file_path, O_RDONLY);
  const uint64_t size = file.size();
  OPSIN_CHECK(FileError, size >= 8, path, ": expected a safetensors file, got only ", size,
              " bytes (the file is truncated)");
  uint64_t length = 0;
  file.read(&length, sizeof(length));
  OPSIN_CHECK(FileError, length <= kMaxHeader && length <= size - 8, path,
              ": expected a safetensors file, but its header of ", length, " bytes does not fit into its ",
              size, " bytes (the file is truncated or damaged)");
  std::string header(length, '\0');
  file.read(header.data(), length);

  SafetensorsFile result;
  std::vector<Entry> entries;
  std::set<std::string> names;
  const json::Value document = json::parse(header, path);
  for (const auto& [name, value] : get<json::Object>(document, path, "the header", "an object")) {
    OPSIN_CHECK(FileError, names.insert(name).second, path, ": the name '", name,
                "' appears twice in the header (the file is damaged)");
    if (name != "__metadata__") {
      entries.push_back(read_entry(name, value, path));
      continue;
    }
    for (const auto& [key, text] : get<json::Object>(value, path, "__metadata__", "an object")) {
      result.metadata[key] = get<std::string>(text, path, "__metadata__", "strings");
    }
  }
  check_layout(entries, size - 8 - length, path);
  for (const Entry& entry : entries) {
    const Tensor tensor = empty(entry.sizes, entry.dtype);
    if (tensor.numel() > 0) file.read(tensor.impl()->mutable_data(), entry.end - entry.begin);
    if (entry.dtype == kBool) {
      // Any nonzero byte counts as true, but only 0 and 1 are valid bools in memory.
      auto* bytes = reinterpret_cast<uint8_t*>(tensor.impl()->mutable_data());
      for (int64_t i = 0; i < tensor.numel(); ++i) bytes[i] = bytes[i] != 0;
    }
    result.tensors.emplace_back(entry.name, tensor);
  }
  return result;
}

}  // namespace opsin

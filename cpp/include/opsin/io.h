// Checkpoints in the safetensors format: a JSON header and raw little-endian data, so loading runs no code.
// Format: https://github.com/huggingface/safetensors
#pragma once

#include <map>
#include <utility>

#include <opsin/tensor.h>

namespace opsin {

struct SafetensorsFile {
  std::vector<std::pair<std::string, Tensor>> tensors;  ///< In the order of their data.
  std::map<std::string, std::string> metadata;
};

/// Writes the file beside `path` and renames it over `path` once it is safely on disk, so that a full disk or
/// a crash leaves the old file as it was. FileError when it cannot be written.
OPSIN_API void save_safetensors(const std::string& path,
                                const std::vector<std::pair<std::string, Tensor>>& tensors,
                                const std::map<std::string, std::string>& metadata = {});
/// Reads a file of any origin: sizes, offsets and types are checked before memory is taken. FileError naming
/// the file and the rule when it cannot be read, is truncated or damaged.
OPSIN_API SafetensorsFile load_safetensors(const std::string& path);

}  // namespace opsin

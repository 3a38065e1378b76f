#include <charconv>

#include <opsin/device.h>
#include <opsin/error.h>

namespace opsin {

std::string Device::str() const { return is_cpu() ? "cpu" : "cuda:" + std::to_string(index); }

Device Device::parse(std::string_view text) {
  if (text == "cpu" || text == "cpu:0") return kCPU;
  if (text == "cuda") return {DeviceType::kCUDA, 0};
  int index = -1;
  if (text.starts_with("cuda:")) {
    const char* end = text.data() + text.size();
    const auto [last, error] = std::from_chars(text.data() + 5, end, index);
    if (error != std::errc() || last != end || index > 127) index = -1;
  }
  OPSIN_CHECK(Error, index >= 0, "device: expected 'cpu', 'cuda' or 'cuda:N', got '", text, "'");
  return {DeviceType::kCUDA, static_cast<int8_t>(index)};
}

}  // namespace opsin

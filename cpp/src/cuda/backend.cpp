#include "cuda/backend.h"

#include <opsin/error.h>

#include "cuda/api.h"
#include "cuda/current_stream.h"
#include "cuda/transpose.h"

namespace opsin::cuda {

void* current_stream() { return nullptr; }

void before_launch() { api::set_device(active_device()); }

namespace {

class CudaBackend final : public Backend {
 public:
  int device_count(std::string& why_not) override { return api::device_count(why_not); }

  void* allocate(size_t bytes, Device device) override {
    api::set_device(device.index);
    void* const data = api::allocate(bytes);
    OPSIN_CHECK(OutOfMemoryError, data, "CUDA out of memory. Tried to allocate ", bytes, " bytes on ",
                device.str());
    return data;
  }

  void deallocate(void* data, size_t, Device device) noexcept override {
    api::set_device(device.index);
    api::release(data);
  }

  void copy(void* to, Device to_device, const void* from, Device from_device, size_t bytes,
            bool) override {
    const api::Copy kind = to_device.is_cpu()     ? api::Copy::kToHost
                           : from_device.is_cpu() ? api::Copy::kToDevice
                                                  : api::Copy::kWithin;
    api::set_device(to_device.is_cpu() ? from_device.index : to_device.index);
    api::copy(to, from, bytes, kind, current_stream());
    if (kind != api::Copy::kWithin) api::synchronize_stream(current_stream());
  }

  void fill_zero(void* data, size_t bytes, Device device) override {
    api::set_device(device.index);
    api::fill(data, 0, bytes, current_stream());
  }

  void transpose(const void* from, void* to, int64_t batch, int64_t rows, int64_t cols, size_t item_size,
                 Device device) override {
    active_device() = device.index;
    cuda::transpose(from, to, batch, rows, cols, item_size);
  }
};

}  // namespace

Backend& backend() {
  static CudaBackend* const backend = new CudaBackend;
  return *backend;
}

}  // namespace opsin::cuda

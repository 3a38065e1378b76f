#include "core/backend.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>

#include <dlfcn.h>
#include <unistd.h>

#include <opsin/error.h>
#include <opsin/version.h>

#include "core/build_id.h"
#include "core/kernel.h"

namespace opsin {

Backend::~Backend() = default;
BackendGraph::~BackendGraph() = default;

const char* build_id() { return OPSIN_BUILD_ID; }

int& active_device() {
  static thread_local int device = 0;
  return device;
}

namespace {

std::string library_folder() {
  Dl_info info;
  if (dladdr(reinterpret_cast<const void*>(&library_folder), &info) == 0 || !info.dli_fname) return ".";
  const std::string path = info.dli_fname;
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : path.substr(0, slash);
}

/// OPSIN_CUDA_PLUGIN is "emulated" for the kernels on the CPU, or the path of a plug-in; by default it lies
/// beside this library.
std::string plugin_path() {
  const char* chosen = std::getenv("OPSIN_CUDA_PLUGIN");
  if (!chosen || !*chosen) return library_folder() + "/libopsin_cuda.so";
  if (std::strcmp(chosen, "emulated") == 0) return library_folder() + "/libopsin_cuda_emulated.so";
  return chosen;
}

std::string last_error() {
  const char* text = dlerror();
  return text ? text : "unknown error";
}

void (*plugin_hook)() = nullptr;

BackendState load(const std::string& from_hook) {
  ensure_ops_registered();
  BackendState state;
  const std::string path = plugin_path();
  if (access(path.c_str(), F_OK) != 0) {
    state.why_not = "this build has no CUDA plug-in: " + path +
                    " does not exist (install the package with CUDA, or build with -DOPSIN_CUDA=ON)";
    return state;
  }
  if (!from_hook.empty()) {
    state.why_not = from_hook;
    return state;
  }
  void* const plugin = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!plugin) {
    state.why_not = "the CUDA plug-in cannot be loaded: " + last_error() +
                    " (NVIDIA's libraries come with pip install 'opsin[cuda]')";
    return state;
  }
  const auto* id = static_cast<const char*>(dlsym(plugin, kPluginBuildId));
  const auto entry = reinterpret_cast<PluginEntry>(dlsym(plugin, kPluginEntry));
  if (!id || !entry || std::strcmp(id, build_id()) != 0) {
    state.why_not = "the CUDA plug-in " + plugin_path() +
                    " belongs to another build: " + (id ? id : "no id") + ", expected " + build_id() +
                    " (install both from one wheel)";
    return state;
  }
  try {
    state.backend = entry();
    state.devices = std::min(state.backend->device_count(state.why_not), kMaxCudaDevices);
  } catch (const std::exception& error) {
    state.devices = 0;
    state.why_not = error.what();
  }
  return state;
}

}  // namespace

void set_plugin_hook(void (*hook)()) { plugin_hook = hook; }

const BackendState& backend_state() {
  static constinit std::atomic<const BackendState*> loaded = nullptr;
  if (const BackendState* state = loaded.load(std::memory_order_acquire)) return *state;
  // Outside the lock of the static: the hook may wait for a lock of its own (Python's), whose owner waits
  // here.
  std::string from_hook;
  try {
    if (plugin_hook) plugin_hook();
  } catch (const std::exception& error) {
    from_hook = error.what();
  }
  static const BackendState* const state = new BackendState(load(from_hook));
  loaded.store(state, std::memory_order_release);
  return *state;
}

Backend& backend(Device device) {
  const BackendState& state = backend_state();
  OPSIN_CHECK(Error, state.devices > 0, "device: no ", device.str(),
              " on this machine (opsin.cuda.is_available() is False): ", state.why_not);
  OPSIN_CHECK(Error, device.index >= 0 && device.index < state.devices, "device: invalid device ordinal ",
              device.str(), ", this machine has ", state.devices);
  return *state.backend;
}

namespace detail {

void activate(Device device) {
  (void)backend(device);
  active_device() = device.index;
}

KernelSlotBase*& first_slot() {
  static constinit KernelSlotBase* slot = nullptr;
  return slot;
}

}  // namespace detail

}  // namespace opsin

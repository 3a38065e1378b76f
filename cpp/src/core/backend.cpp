#include "core/backend.h"

#include <cstdlib>
#include <cstring>

#include <dlfcn.h>

#include <opsin/error.h>
#include <opsin/version.h>

#include "core/build_id.h"
#include "core/kernel.h"

namespace opsin {

Backend::~Backend() = default;

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

BackendState load() {
  ensure_ops_registered();
  BackendState state;
  void* const plugin = dlopen(plugin_path().c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!plugin) {
    state.why_not =
        "no CUDA plug-in: " + last_error() + " (pip install 'opsin[cuda]', or build with -DOPSIN_CUDA=ON)";
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
    state.devices = state.backend->device_count(state.why_not);
  } catch (const std::exception& error) {
    state.devices = 0;
    state.why_not = error.what();
  }
  return state;
}

}  // namespace

const BackendState& backend_state() {
  static const BackendState* const state = new BackendState(load());
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

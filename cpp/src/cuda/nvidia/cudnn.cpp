#include "cuda/nvidia/cudnn.h"

#include <algorithm>
#include <array>

#include <opsin/error.h>

namespace opsin::cuda::cudnn {

namespace {

/// At most so many engine configurations are asked for in each mode.
constexpr size_t kConfigs = 64;

constexpr std::array<cudnnBackendHeurMode_t, 3> kModes{CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_B,
                                                       CUDNN_HEUR_MODE_FALLBACK};

std::string version_text(size_t number) {
  return opsin::detail::concat(number / 10000, ".", number / 100 % 100, ".", number % 100);
}

/// The engine that a configuration is for.
Descriptor engine_of(const Descriptor& config) {
  Descriptor engine(CUDNN_BACKEND_ENGINE_DESCRIPTOR);
  cudnnBackendDescriptor_t raw = engine.raw();
  int64_t count = 0;
  check(cudnnBackendGetAttribute(config.raw(), CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
                                 &count, &raw),
        "engine of a configuration");
  return engine;
}

/// Whether an engine carries a note.
template <class Note>
bool has(const std::vector<Note>& notes, Note note) {
  return std::find(notes.begin(), notes.end(), note) != notes.end();
}
std::vector<cudnnBackendNumericalNote_t> numerical_notes(const Descriptor& engine) {
  return engine.get<cudnnBackendNumericalNote_t>(CUDNN_ATTR_ENGINE_NUMERICAL_NOTE,
                                                 CUDNN_NUMERICAL_NOTE_TYPE_COUNT);
}

}  // namespace

void check(cudnnStatus_t status, const char* call) {
  if (status == CUDNN_STATUS_SUCCESS) [[likely]]
    return;
  char text[512] = "";
  cudnnGetLastErrorString(text, sizeof text);
  opsin::detail::raise<Error>("cuDNN: ", call, ": ", cudnnGetErrorString(status), *text ? " (" : "", text,
                              *text ? ")" : "");
}

void check_version() {
  const size_t version = cudnnGetVersion();
  OPSIN_CHECK(Error, version >= OPSIN_CUDNN_MINIMUM, "cuDNN: expected version ",
              version_text(OPSIN_CUDNN_MINIMUM), " or newer, got ", version_text(version),
              " (pip install -U nvidia-cudnn-cu13; import opsin before a package that brings an older one)");
}

Descriptor::Descriptor(cudnnBackendDescriptorType_t type) {
  check(cudnnBackendCreateDescriptor(type, &raw_), "cudnnBackendCreateDescriptor");
}

Descriptor::~Descriptor() {
  if (raw_) cudnnBackendDestroyDescriptor(raw_);
}

Descriptor& Descriptor::set_raw(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                                int64_t count, const void* values) {
  check(cudnnBackendSetAttribute(raw_, name, type, count, values), "cudnnBackendSetAttribute");
  return *this;
}

Descriptor& Descriptor::set_all(cudnnBackendAttributeName_t name, const std::vector<Descriptor>& values) {
  std::vector<cudnnBackendDescriptor_t> raw;
  raw.reserve(values.size());
  for (const Descriptor& value : values) raw.push_back(value.raw_);
  return set_raw(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, static_cast<int64_t>(raw.size()), raw.data());
}

Descriptor& Descriptor::finalize(const char* what) {
  check(cudnnBackendFinalize(raw_), what);
  return *this;
}

Target::Target(std::string_view properties_json) {
  Descriptor properties(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
  properties.set_all(CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, std::span<const char>(properties_json));
  properties.finalize("device properties");
  properties_.push_back(std::move(properties));
}

cudnnDataType_t data_type(DType dtype) {
  switch (dtype) {
    case kFloat16:
      return CUDNN_DATA_HALF;
    case kBFloat16:
      return CUDNN_DATA_BFLOAT16;
    case kFloat32:
      return CUDNN_DATA_FLOAT;
    case kFloat64:
      return CUDNN_DATA_DOUBLE;
    default:
      opsin::detail::raise<TypeError>("cuDNN: no graphs for dtype ", name(dtype));
  }
}

Descriptor make_tensor(int64_t uid, cudnnDataType_t type, IntSpan sizes, IntSpan strides, int64_t alignment,
                       bool is_virtual) {
  Descriptor tensor(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
  tensor.set(CUDNN_ATTR_TENSOR_DATA_TYPE, type)
      .set_all(CUDNN_ATTR_TENSOR_DIMENSIONS, sizes)
      .set_all(CUDNN_ATTR_TENSOR_STRIDES, strides)
      .set(CUDNN_ATTR_TENSOR_UNIQUE_ID, uid)
      .set(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, alignment)
      .set(CUDNN_ATTR_TENSOR_IS_VIRTUAL, is_virtual)
      .finalize("tensor");
  return tensor;
}

Descriptor make_pointwise(cudnnPointwiseMode_t mode, cudnnDataType_t compute, const Descriptor& x,
                          const Descriptor* b, const Descriptor& y) {
  Descriptor kind(CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
  kind.set(CUDNN_ATTR_POINTWISE_MODE, mode)
      .set(CUDNN_ATTR_POINTWISE_MATH_PREC, compute)
      .finalize("pointwise");
  Descriptor operation(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
  operation.set(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, kind)
      .set(CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x)
      .set(CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y);
  if (b) operation.set(CUDNN_ATTR_OPERATION_POINTWISE_BDESC, *b);
  operation.finalize("pointwise operation");
  return operation;
}

Graph::Graph(const Target& target, std::vector<Descriptor> tensors, std::vector<Descriptor> operations)
    : tensors_(std::move(tensors)), operations_(std::move(operations)) {
  graph_.set_all(CUDNN_ATTR_OPERATIONGRAPH_OPS, operations_);
  if (target.handle_) {
    // Deprecated since handles became optional; without one cuDNN asks the driver which device is current.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
    graph_.set(CUDNN_ATTR_OPERATIONGRAPH_HANDLE, target.handle_);
#pragma GCC diagnostic pop
  }
  graph_.finalize("operation graph");
}

void PlanSearch::refill() {
  configs_.clear();
  at_ = 0;
  Descriptor heuristics(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
  heuristics.set(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph_.descriptor())
      .set(CUDNN_ATTR_ENGINEHEUR_MODE, kModes[mode_++]);
  if (!target_.properties_.empty()) heuristics.set(CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, target_.properties_[0]);
  if (!heuristics.try_finalize()) return;
  std::array<cudnnBackendDescriptor_t, kConfigs> raw;
  for (auto& config : raw) {
    configs_.emplace_back(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    config = configs_.back().raw();
  }
  int64_t count = 0;
  const cudnnStatus_t status =
      cudnnBackendGetAttribute(heuristics.raw(), CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                               static_cast<int64_t>(kConfigs), &count, raw.data());
  const size_t found = status == CUDNN_STATUS_SUCCESS ? static_cast<size_t>(count) : 0;
  while (configs_.size() > found) configs_.pop_back();
}

bool PlanSearch::admits(const Descriptor& config) const {
  const auto notes = numerical_notes(engine_of(config));
  for (const auto note :
       {CUDNN_NUMERICAL_NOTE_FFT, CUDNN_NUMERICAL_NOTE_WINOGRAD,
        CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION, CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS}) {
    if (has(notes, note)) return false;
  }
  if (filter_.deterministic && has(notes, CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC)) return false;
  const bool tensor_cores = has(notes, CUDNN_NUMERICAL_NOTE_TENSOR_CORE);
  if (filter_.prefer_tensor_cores) return tensor_cores == (pass_ == 0);
  return filter_.tensor_cores || !tensor_cores;
}

std::string describe(const Plan& plan) {
  const Descriptor engine = engine_of(plan.config);
  const auto numbers = engine.get<int64_t>(CUDNN_ATTR_ENGINE_GLOBAL_INDEX, 1);
  const auto numerical = numerical_notes(engine);
  const auto behavior =
      engine.get<cudnnBackendBehaviorNote_t>(CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE, CUDNN_BEHAVIOR_NOTE_TYPE_COUNT);
  return opsin::detail::concat("engine ", numbers.empty() ? -1 : numbers[0],
                               has(numerical, CUDNN_NUMERICAL_NOTE_TENSOR_CORE) ? ", tensor cores" : "",
                               has(behavior, CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION) ? ", compiled" : "",
                               ", workspace ", plan.workspace);
}

bool PlanSearch::next(std::vector<Plan>& plans) {
  for (;;) {
    while (at_ == configs_.size()) {
      if (mode_ == kModes.size()) {
        if (pass_ == 1 || !filter_.prefer_tensor_cores) return false;
        pass_ = 1;
        mode_ = 0;
      }
      refill();
    }
    Descriptor& config = configs_[at_++];
    if (!admits(config)) continue;
    Descriptor plan(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
    plan.set(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, config);
    if (!target_.properties_.empty()) plan.set(CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, target_.properties_[0]);
    if (target_.handle_) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
      plan.set(CUDNN_ATTR_EXECUTION_PLAN_HANDLE, target_.handle_);
#pragma GCC diagnostic pop
    }
    if (!plan.try_finalize()) continue;
    const auto workspace = plan.get<int64_t>(CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, 1);
    if (workspace.empty() || workspace[0] > filter_.max_workspace) continue;
    plans.push_back({std::move(config), std::move(plan), workspace[0]});
    return true;
  }
}

void execute(cudnnHandle_t handle, const Plan& plan, std::span<const int64_t> uids,
             std::span<void* const> pointers, void* workspace) {
  Descriptor pack(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
  pack.set_all(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, uids)
      .set_all(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, pointers)
      .set(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, workspace)
      .finalize("variant pack");
  check(cudnnBackendExecute(handle, plan.plan.raw(), pack.raw()), "cudnnBackendExecute");
}

}  // namespace opsin::cuda::cudnn
